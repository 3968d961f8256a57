package authorize

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzToken reads any token, and any claims in one that is well-formed. It fits
// only the certificate that it names, and errors do not show it.
func FuzzToken(f *testing.F) {
	const signed = "eyJhbGciOiJFUzI1NiJ9.%s.AAAA"
	for _, claims := range []string{
		`{"sub":"4660","aud":"https://ca.test/1.0/revoke","sha":"ab","exp":4102444800}`, `{"sub":"4661","aud":["https://ca.test/revoke"]}`, `{"sub":"0x1234","aud":"https://ca.test/1.0/sign"}`,
		`{"sub":"4660","aud":["step-certificate-authority"],"nbf":1.5,"exp":1e300}`, `{"sub":4660}`, `{"aud":null}`, `{"exp":"x"}`, `[]`, `{"sub":"4660","aud":"://","exp":-9223372036854775808}`,
	} {
		f.Add(strings.Replace(signed, "%s", base64.RawURLEncoding.EncodeToString([]byte(claims)), 1), claims)
	}
	f.Add(newToken(f, map[string]any{"sub": "4660"}), `{"sub":"04660","sub":"4660"}`)
	f.Add(`{"payload":"e30","signatures":[]}`, "\xff")
	list := &target.List{All: []target.Target{{Serial: target.Serial{18: 0x12, 19: 0x34}}}}
	f.Fuzz(func(t *testing.T, raw, claims string) {
		defer bounded()()
		for _, raw := range []string{raw, strings.Replace(signed, "%s", base64.RawURLEncoding.EncodeToString([]byte(claims)), 1)} {
			token, err := ReadToken(t.Context(), raw, "")
			if err != nil && len(raw) > 20 && strings.Contains(err.Error(), raw[:20]) {
				t.Errorf("the token is in %q", err)
			}
			if err != nil || token == nil {
				continue
			}
			if (token.Audience == "") != (token.Root == "") {
				t.Errorf("half of the CA: %+v", token)
			}
			if err := token.checkFor(list); err == nil && token.claims.Subject != "4660" {
				t.Errorf("%q fits the serial number 4660", raw)
			}
		}
	})
}

// FuzzFitting chooses from any provisioners that a CA lists. What fits can be shown,
// and be asked for its key.
func FuzzFitting(f *testing.F) {
	for _, list := range []string{
		`[{"type":"JWK","name":"admin","key":{"use":"sig","kty":"EC","kid":"k","crv":"P-256","alg":"ES256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"},"encryptedKey":"eyJ"}]`,
		`[{"type":"JWK","name":"admin"},{"type":"X5C","name":"x","roots":"LS0t"},{"type":"ACME","name":"acme"}]`, `[{"type":"X5C"},{"type":"JWK","key":null}]`, `[]`,
	} {
		f.Add([]byte(list), "admin", "k")
	}
	_, leaf, _ := newMiniCA(f, time.Now(), time.Now().Add(time.Hour))
	f.Fuzz(func(t *testing.T, data []byte, name, kid string) {
		defer bounded()()
		var list provisioner.List
		if json.Unmarshal(data, &list) != nil {
			return
		}
		for _, c := range []Credentials{{}, {config: Config{Provisioner: name, KID: kid}}, {x5c: []*x509.Certificate{leaf}}} {
			fitting, err := c.fitting(list)
			if (err == nil) != (len(fitting) > 0) {
				t.Errorf("%d fit, %v", len(fitting), err)
			}
			for _, p := range fitting {
				_, _, _ = p.GetEncryptedKey()
				if p.GetIDForToken() == "" || c.config.Provisioner != "" && p.GetName() != name {
					t.Errorf("%q fits", p.GetName())
				}
			}
		}
	})
}

// FuzzProvisionerKey reads any file as the key of a provisioner. What is read can
// sign a token.
func FuzzProvisionerKey(f *testing.F) {
	for _, kind := range []struct{ kty, crv, alg string }{{"EC", "P-256", "ES256"}, {"OKP", "Ed25519", "EdDSA"}} {
		key := newKey(f, kind.kty, kind.crv, kind.alg)
		jwk, err := json.Marshal(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(jwk)
		f.Add(keyPEM(f, key))
		f.Add([]byte(encrypt(f, key, "open sesame")))
	}
	f.Add([]byte(`{"kty":"oct","k":"AAAA"}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","d":"AQ","x":"AQ","y":"AQ"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounded()()
		key, err := (&Credentials{password: []byte("open sesame")}).unlock(t.Context(), data, "the key")
		if err != nil || len(data) > 8<<10 { // large RSA keys are slow
			return
		}
		signer, err := newProvisionerKey(&provisioner.JWK{Name: "admin"}, "https://ca.test/1.0/revoke", key, "kid", key.KeyID)
		if err != nil {
			return
		}
		if token, err := signer.Token(target.Serial{19: 1}); err == nil && strings.Count(token, ".") != 2 {
			t.Errorf("no token: %q", token)
		}
	})
}
