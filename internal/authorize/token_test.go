package authorize

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// newToken signs claims.
func newToken(t testing.TB, claims map[string]any) string {
	t.Helper()
	key := newKey(t, "EC", "P-256", "ES256")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key.Key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestReadToken(t *testing.T) {
	t.Parallel()
	write := in(t)
	const audience, sum = "HTTPS://CA.test/1.0/revoke", "AB:cd"
	full := newToken(t, map[string]any{"iss": "admin", "aud": audience, "sha": sum})
	for _, tt := range []struct{ name, raw, file, audience, root string }{
		{name: "full", raw: " " + full + "\n", audience: audience, root: sum},
		{name: "in a file", file: write("token", []byte(full+"\n")), audience: audience, root: sum},
		{name: "no fingerprint", raw: newToken(t, map[string]any{"iss": "admin", "aud": audience})},
		{name: "no audience", raw: newToken(t, map[string]any{"iss": "admin", "sha": sum})},
		{name: "no address", raw: newToken(t, map[string]any{"iss": "admin", "aud": "step-certificate-authority", "sha": sum})},
		{name: "a list", raw: newToken(t, map[string]any{"iss": "admin", "aud": []string{audience, "x"}, "sha": sum}), audience: audience, root: sum},
	} {
		token, err := ReadToken(t.Context(), tt.raw, tt.file)
		if err != nil || token.Audience != tt.audience || token.Root != tt.root {
			t.Errorf("%s: %+v, %v", tt.name, token, err)
			continue
		}
		proof, err := (&Credentials{config: Config{Token: token}}).Proof(t.Context(), nil)
		if err != nil || proof.Repeatable() || proof.String() != "token of admin" {
			t.Errorf("%s: %v, %v", tt.name, proof, err)
		}
		if raw, err := proof.Token(target.Serial{}); err != nil || !strings.Contains(full+tt.raw, raw) {
			t.Errorf("%s: %q, %v", tt.name, raw, err)
		}
	}
	if token, err := ReadToken(t.Context(), "", ""); token != nil || err != nil {
		t.Errorf("no token at all: %v, %v", token, err)
	}
}

func TestReadTokenErrors(t *testing.T) {
	t.Parallel()
	write := in(t)
	const noToken, makeOne = "the token is not a signed JSON Web Token", "step ca token SERIAL-NUMBER --revoke"
	part := base64.RawURLEncoding.EncodeToString
	blank := write("blank", []byte(" \n"))
	for _, tt := range []struct{ name, raw, file, text, hint string }{
		{name: "garbage", raw: "hunter2", text: noToken, hint: makeOne},
		{name: "claims that are no JSON", raw: part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte("hunter2")) + "." + part(make([]byte, 64)), text: noToken, hint: makeOne},
		{name: "claims of other types", raw: newToken(t, map[string]any{"sub": 5}), text: noToken, hint: makeOne},
		{name: "blank", file: blank, text: "the token file " + blank + " is empty"},
		{name: "a token for a file", file: "eyJhbGciOiJub25lIn0", text: "--token-file names a file, and this is a token", hint: "--token takes"},
		{name: "a key", file: write("key", keyPEM(t, newKey(t, "EC", "P-256", "ES256"))), text: noToken, hint: makeOne},
	} {
		token, err := ReadToken(t.Context(), tt.raw, tt.file)
		checkProblem(t, tt.name, err, tt.text, tt.hint, problem.Usage)
		if token != nil {
			t.Errorf("%s: %+v", tt.name, token)
		}
	}
}

// TestCheckFor shows which tokens can revoke the certificate 26.
func TestCheckFor(t *testing.T) {
	t.Parallel()
	const revoke = "https://ca.test/1.0/revoke"
	past := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	for _, tt := range []struct {
		name   string
		claims string // in JSON
		text   string
	}{
		{"good", `{"sub":"26","aud":"` + revoke + `"}`, ""},
		{"X5C", `{"sub":"26","aud":"` + revoke + `#x5c/hosts"}`, ""},
		{"of old", `{"sub":"26","aud":["https://ca.test/sign","step-certificate-authority"]}`, ""},
		{"one of several", `{"sub":"26","aud":["https://ca.test/1.0/sign","` + revoke + `"]}`, ""},
		{"unreadable", `{"sub":"26","aud":["://"]}`, ""},
		{"no audience", `{"sub":"26"}`, "the token is for no audience, not for revoking an X.509 certificate"},
		{"signing", `{"sub":"26","aud":"https://ca.test/1.0/sign"}`, "the token is for signing a certificate, not for revoking an X.509 certificate"},
		{"renewing", `{"sub":"26","aud":"https://ca.test/renew"}`, "the token is for renewing a certificate, not for revoking an X.509 certificate"},
		{"SSH", `{"sub":"26","aud":"https://ca.test/1.0/ssh/revoke"}`, "the token is for revoking an SSH certificate, not for revoking an X.509 certificate"},
		{"elsewhere", `{"sub":"26","aud":"https://ca.test/x"}`, `the token is for the audience "https://ca.test/x", not for revoking an X.509 certificate`},
		{"hexadecimal", `{"sub":"0x1a","aud":"` + revoke + `"}`, "the token is for this serial number in another form (0x1a), which step-ca does not accept"},
		{"bare hexadecimal", `{"sub":"1a","aud":"` + revoke + `"}`, "the token is for this serial number in another form (1a), which step-ca does not accept"},
		{"with colons", `{"sub":"00:1A","aud":"` + revoke + `"}`, "the token is for this serial number in another form (00:1A), which step-ca does not accept"},
		{"other", `{"sub":"27","aud":"` + revoke + `"}`, `the token is for "27", not for the serial number 26`},
		{"long", `{"sub":"` + strings.Repeat("x", 99) + `","aud":"` + revoke + `"}`, `the token is for "` + strings.Repeat("x", 64) + `", not for the serial number 26`},
		{"expired", `{"sub":"26","aud":"` + revoke + `","exp":` + jsonOf(past.Unix()) + `}`, "the token expired at " + past.Format(time.RFC3339)},
		{"not expired", `{"sub":"26","aud":"` + revoke + `","exp":` + jsonOf(past.Unix()+7200) + `}`, ""},
	} {
		token := &Token{raw: "raw"}
		if err := json.Unmarshal([]byte(tt.claims), &token.claims); err != nil {
			t.Fatal(err)
		}
		c, err := Read(t.Context(), Config{Token: token}, &target.List{All: []target.Target{{Serial: target.Serial{19: 26}}}})
		if tt.text != "" {
			checkProblem(t, tt.name, err, tt.text, "make one with: step ca token 26 --revoke", problem.Usage)
		} else if err != nil || c.Certificate() != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		_, err = Read(t.Context(), Config{Token: token}, &target.List{All: make([]target.Target, 2)})
		checkProblem(t, tt.name, err, "a token revokes one certificate, not 2", "leave out the token", problem.Usage)
	}
	if problem.Code((&Token{}).checkFor(&target.List{})) != problem.Failed {
		t.Error("a token for an empty list")
	}
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
