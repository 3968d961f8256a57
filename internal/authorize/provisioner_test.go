package authorize

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/minica"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// checkProblem checks the text, the hint and the exit code of an error: it is this
// one if the flow would take it for a mistake in the command.
func checkProblem(t *testing.T, name string, err error, text, hint string, want int) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("%s: error %v, want %q", name, err, text)
		return
	}
	if hints := strings.Join(problem.Hints(err), "\n"); !strings.Contains(hints, hint) || hint == "" && hints != "" {
		t.Errorf("%s: hints %q, want %q in them", name, hints, hint)
	}
	if code := problem.Code(problem.Default(err, problem.Usage)); code != want {
		t.Errorf("%s: the code %d, want %d", name, code, want)
	}
}

// fakeCA has these provisioners.
type fakeCA provisioner.List

func (ca fakeCA) Provisioners(context.Context) (provisioner.List, error) {
	return provisioner.List(ca), nil
}
func (fakeCA) Audience() string { return "https://ca.test/1.0/revoke" }

// newKey makes a private JWK.
func newKey(t testing.TB, kty, crv, alg string) *jose.JSONWebKey {
	t.Helper()
	key, err := jose.GenerateJWK(kty, crv, alg, "sig", "", 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newJWK makes a provisioner of a key, which it hands out encrypted with the
// password, if there is one. It takes fewer rounds than step to decrypt it.
func newJWK(t *testing.T, name string, key *jose.JSONWebKey, password string) *provisioner.JWK {
	t.Helper()
	public := key.Public()
	p := &provisioner.JWK{Type: "JWK", Name: name, Key: &public}
	if password != "" {
		p.EncryptedKey = encrypt(t, key, password)
	}
	return p
}

func encrypt(t testing.TB, key *jose.JSONWebKey, password string) string {
	t.Helper()
	plain, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	encrypter, err := jose.NewEncrypter(jose.DefaultEncAlgorithm, jose.Recipient{
		Algorithm: jose.PBES2_HS256_A128KW, Key: []byte(password), PBES2Count: 1000, PBES2Salt: []byte("salt of the test"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := encrypter.Encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := encrypted.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// TestProvisionerToken shows that tokens are what others read as JSON Web
// Tokens, with a key for which there is code of our own and with others.
func TestProvisionerToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kty, crv, alg string }{{"EC", "P-256", "ES256"}, {"EC", "P-384", "ES384"}, {"OKP", "Ed25519", "EdDSA"}, {"RSA", "", "RS256"}} {
		t.Run(tt.alg, func(t *testing.T) {
			t.Parallel()
			key := newKey(t, tt.kty, tt.crv, tt.alg)
			p, err := newProvisionerKey(&provisioner.JWK{Name: "admin"}, "https://ca/1.0/revoke", key, "kid", key.KeyID)
			if err != nil {
				t.Fatal(err)
			}
			ids := map[string]bool{}
			for range 100 {
				raw, err := p.Token(target.Serial{19: 42})
				if err != nil {
					t.Fatal(err)
				}
				token, err := jose.ParseSigned(raw)
				if err != nil {
					t.Fatal(err)
				}
				if h := token.Headers[0]; h.KeyID != key.KeyID || h.Algorithm != tt.alg || h.ExtraHeaders["typ"] != "JWT" {
					t.Fatalf("header %+v", h)
				}
				var claims jose.Claims
				if err := token.Claims(key.Public().Key, &claims); err != nil {
					t.Fatal(err)
				}
				if claims.Issuer != "admin" || claims.Subject != "42" || strings.Join(claims.Audience, " ") != "https://ca/1.0/revoke" ||
					claims.Expiry.Time().Sub(claims.NotBefore.Time()) != 5*time.Minute || time.Since(claims.IssuedAt.Time()) > time.Minute {
					t.Errorf("claims %+v", claims)
				}
				ids[claims.ID] = true
			}
			if len(ids) != 100 || !p.Repeatable() || p.String() != "provisioner admin (JWK)" {
				t.Errorf("%d different IDs, %s", len(ids), p)
			}
		})
	}
}

// TestWithES256 shows for which keys tokens are signed with code of our own.
func TestWithES256(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kty, crv, alg string
		calls         int // of the general code, for two tokens
	}{{"EC", "P-256", "ES256", 1}, {"EC", "P-384", "ES384", 2}, {"OKP", "Ed25519", "EdDSA", 2}} {
		calls := 0
		sign, err := withES256(newKey(t, tt.kty, tt.crv, tt.alg), func([]byte) (string, error) {
			calls++
			return "header.claims.signature", nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if signed, err := sign([]byte("{}")); err != nil || !strings.HasPrefix(signed, "header.") {
				t.Errorf("%s: %q, %v", tt.alg, signed, err)
			}
		}
		if calls != tt.calls {
			t.Errorf("%s: %d calls, want %d", tt.alg, calls, tt.calls)
		}
	}
	broken := errors.New("broken")
	if sign, err := withES256(newKey(t, "EC", "P-256", "ES256"), func([]byte) (string, error) { return "", broken }); err != broken || sign != nil {
		t.Errorf("error %v", err)
	}
}

// newMiniCA makes a CA, and a certificate of it.
func newMiniCA(t testing.TB, notBefore, notAfter time.Time) (ca *minica.CA, leaf *x509.Certificate, key *jose.JSONWebKey) {
	t.Helper()
	ca, err := minica.New()
	if err != nil {
		t.Fatal(err)
	}
	key = newKey(t, "EC", "P-256", "ES256")
	leaf, err = ca.Sign(&x509.Certificate{
		PublicKey: key.Public().Key, DNSNames: []string{"leaf.test"}, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ca, leaf, key
}

func asPEM(certs ...*x509.Certificate) []byte {
	var data []byte
	for _, c := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return data
}

// TestFitting shows which of a CA's provisioners can authorize, and what is said
// where none can: the password, which nobody can be asked for here, has not been
// missed yet.
func TestFitting(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, leaf, leafKey := newMiniCA(t, now.Add(-time.Hour), now.Add(time.Hour))
	stranger, err := minica.New(minica.WithName("stranger"))
	if err != nil {
		t.Fatal(err)
	}
	admin, ops := newKey(t, "EC", "P-256", "ES256"), newKey(t, "EC", "P-256", "ES256")
	var (
		adminJWK = newJWK(t, "admin", admin, "")
		opsJWK   = newJWK(t, "ops", ops, "")
		acme     = &provisioner.ACME{Type: "ACME", Name: "web"}
		oidc     = &provisioner.OIDC{Type: "OIDC", Name: "sso"}
		x5c      = &provisioner.X5C{Type: "X5C", Name: "hosts", Roots: asPEM(ca.Root)}
		others   = &provisioner.X5C{Type: "X5C", Name: "others", Roots: asPEM(stranger.Root)}
	)
	all := fakeCA{acme, adminJWK, oidc, opsJWK, x5c, others}
	byX5C := func(name string, chain ...*x509.Certificate) Credentials {
		return Credentials{config: Config{Provisioner: name, X5C: X5C{Cert: "leaf.crt"}}, x5c: chain, signingKey: leafKey}
	}
	const onlyThese, useThese = "only JWK and X5C provisioners can", "use a JWK or X5C provisioner"
	for _, tt := range []struct {
		name       string
		ca         fakeCA
		c          Credentials
		want       string // the names of those that fit, or
		text, hint string
	}{
		{name: "any", ca: all, want: "admin ops"},
		{name: "by name", ca: all, c: Credentials{config: Config{Provisioner: "ops"}}, want: "ops"},
		{name: "by key ID", ca: all, c: Credentials{config: Config{KID: admin.KeyID}}, want: "admin"},
		{name: "by key", ca: all, c: Credentials{signingKey: ops}, want: "ops"},
		{name: "X5C", ca: all, c: byX5C("", leaf, ca.Intermediate), want: "hosts"},
		{name: "nothing at all", text: "the CA has no JWK provisioner to authorize the revocation", hint: onlyThese},
		{name: "without its key", ca: fakeCA{&provisioner.JWK{Type: "JWK", Name: "admin"}}, text: `the CA lists the provisioner "admin" without its key`},
		{name: "nobody of many", ca: slices.Repeat(fakeCA{adminJWK}, 30), c: Credentials{config: Config{Provisioner: "nobody"}},
			text: `the CA has no provisioner "nobody"`, hint: "admin, admin, and 10 more"},
		{name: "ACME and OIDC only", ca: fakeCA{acme, oidc}, text: "the CA has no JWK provisioner to authorize the revocation", hint: onlyThese},
		{name: "X5C only", ca: fakeCA{x5c}, text: "the CA has no JWK provisioner to authorize the revocation", hint: "(X5C: --x5c-cert and --x5c-key)"},
		{name: "no X5C", ca: fakeCA{adminJWK}, c: byX5C("", leaf), text: "the CA has no X5C provisioner to authorize the revocation", hint: onlyThese},
		{name: "ACME by name", ca: all, c: Credentials{config: Config{Provisioner: "web"}},
			text: `the provisioner "web" is of type ACME and cannot authorize a revocation: ACME has no tokens`, hint: useThese},
		{name: "OIDC by name", ca: all, c: Credentials{config: Config{Provisioner: "sso"}},
			text: `the provisioner "sso" is of type OIDC and cannot authorize a revocation: the subject of its tokens is a user, and step-ca wants the serial number there`, hint: useThese},
		{name: "X5C by name", ca: all, c: Credentials{config: Config{Provisioner: "hosts"}}, text: `the provisioner "hosts" is of type X5C`, hint: "--x5c-cert"},
		{name: "JWK by name, with X5C", ca: all, c: byX5C("ops", leaf), text: `the provisioner "ops" is of type JWK and not X5C`, hint: "STEP_X5C_CERT"},
		{name: "nobody", ca: all, c: Credentials{config: Config{Provisioner: "nobody"}}, text: `the CA has no provisioner "nobody"`, hint: "its JWK provisioners are: admin, ops"},
		{name: "other key ID", ca: all, c: Credentials{config: Config{KID: "x"}}, text: `the CA has no JWK provisioner with the key ID "x"`, hint: "admin, ops"},
		{name: "other key ID, by name", ca: all, c: Credentials{config: Config{Provisioner: "ops", KID: "x"}}, text: `the provisioner "ops" has another key`, hint: "--kid"},
		{name: "other key", ca: all, c: Credentials{config: Config{KeyFile: "k.jwk"}, signingKey: leafKey},
			text: "the key in k.jwk is not that of a provisioner of this CA", hint: "admin, ops"},
		{name: "untrusted", ca: fakeCA{others}, c: byX5C("", leaf, ca.Intermediate),
			text: "the CA has no X5C provisioner that trusts the certificate in leaf.crt: x509: certificate signed by unknown authority", hint: "--x5c-chain"},
		{name: "untrusted, by name", ca: all, c: byX5C("hosts", leaf),
			text: `the provisioner "hosts" does not trust the certificate in leaf.crt: x509: certificate signed by unknown authority`, hint: "--x5c-chain"},
	} {
		if tt.text != "" {
			proof, err := tt.c.Proof(t.Context(), tt.ca)
			checkProblem(t, tt.name, err, tt.text, tt.hint, problem.Failed)
			if proof != nil {
				t.Errorf("%s: the proof %v", tt.name, proof)
			}
			continue
		}
		fitting, err := tt.c.fitting(provisioner.List(tt.ca))
		var names []string
		for _, p := range fitting {
			names = append(names, p.GetName())
		}
		if got := strings.Join(names, " "); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
