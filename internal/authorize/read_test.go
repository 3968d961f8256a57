package authorize

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// in returns a function that writes a file into a directory of the test, and
// returns its name.
func in(t *testing.T) func(name string, data []byte) string {
	dir := t.TempDir()
	return func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
}

// keyPEM writes the key of a JWK in PEM.
func keyPEM(t testing.TB, key *jose.JSONWebKey) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if _, err := pemutil.Serialize(key.Key, pemutil.ToFile(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCertificate shows which certificates can authorize themselves, and which
// can sign tokens.
func TestCertificate(t *testing.T) {
	t.Parallel()
	write, now := in(t), time.Now()
	ca, leaf, key := newMiniCA(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, expired, expiredKey := newMiniCA(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	_, early, earlyKey := newMiniCA(t, now.Add(time.Hour), now.Add(2*time.Hour))
	stamped := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	keyFile := func(key *jose.JSONWebKey) input.KeyFile {
		return input.KeyFile{File: write("key-"+key.KeyID, keyPEM(t, key)), Flag: "--key", CertFlag: "--cert"}
	}
	chainFile := write("chain.crt", asPEM(ca.Intermediate))
	for _, tt := range []struct {
		name           string
		leaf           *x509.Certificate
		key            *jose.JSONWebKey
		mTLS, mTLSHint string // the error, with FILE for the certificate's file and KEY for the key's
		x5c            string
	}{
		{name: "good", leaf: leaf, key: key},
		{name: "other key", leaf: leaf, key: expiredKey, mTLS: "the key in KEY does not belong to the certificate in FILE", x5c: "the key in KEY does not belong to the certificate in FILE"},
		{name: "expired", leaf: expired, key: expiredKey,
			mTLS: "the certificate in FILE expired at " + stamped(expired.NotAfter) + " and cannot authorize its own revocation", mTLSHint: "leave out --key",
			x5c: "the certificate in FILE expired at " + stamped(expired.NotAfter)},
		{name: "early", leaf: early, key: earlyKey, mTLS: "the certificate in FILE is not valid before " + stamped(early.NotBefore), mTLSHint: "check the clock"},
	} {
		file, key := write(tt.name+".crt", asPEM(tt.leaf)), keyFile(tt.key)
		words := strings.NewReplacer("FILE", file, "KEY", key.File)
		list := &target.List{Chain: []*x509.Certificate{tt.leaf, ca.Intermediate}}
		c, err := Read(t.Context(), Config{Cert: file, Key: key}, list)
		if tt.mTLS != "" {
			checkProblem(t, tt.name, err, words.Replace(tt.mTLS), tt.mTLSHint, problem.Usage)
		} else if err != nil || len(c.Certificate().Certificate) != 2 || c.Certificate().Leaf != tt.leaf {
			t.Errorf("%s: %v", tt.name, err)
		} else if proof, err := c.Proof(t.Context(), nil); err != nil || proof.String() != "the certificate itself" || !proof.Repeatable() {
			t.Errorf("%s: %v, %v", tt.name, proof, err)
		}

		c, err = Read(t.Context(), Config{X5C: X5C{Cert: file, Key: key, Chain: []string{chainFile}}}, &target.List{})
		if tt.x5c != "" {
			checkProblem(t, tt.name, err, words.Replace(tt.x5c), "", problem.Usage)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		x5c := &provisioner.X5C{Type: "X5C", Name: "hosts", Roots: asPEM(ca.Root)}
		if tt.leaf == leaf {
			checkX5CToken(t, c, x5c)
		}
	}
	cfg := Config{X5C: X5C{Cert: write("leaf.crt", asPEM(leaf)), Chain: []string{""}}}
	_, err := Read(t.Context(), cfg, &target.List{})
	checkProblem(t, "an empty name", err, "--x5c-chain has no value", "", problem.Usage)
}

// checkX5CToken checks the token that a certificate signs for a provisioner.
func checkX5CToken(t *testing.T, c *Credentials, p *provisioner.X5C) {
	t.Helper()
	proof, err := c.Proof(t.Context(), fakeCA{p})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proof.Token(target.Serial{19: 7})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jose.ParseSigned(raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims jose.Claims
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Roots)
	chains, err := token.Headers[0].Certificates(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err == nil {
		err = token.Claims(chains[0][0].PublicKey, &claims)
	}
	if err != nil || claims.Audience[0] != "https://ca.test/1.0/revoke#x5c/hosts" || proof.String() != "provisioner hosts (X5C)" {
		t.Errorf("%v: claims %+v, %v", proof, claims, err)
	}
}

// TestPassword unlocks the key of a provisioner with what a file has.
func TestPassword(t *testing.T) {
	t.Parallel()
	write := in(t)
	key := newKey(t, "EC", "P-256", "ES256")
	ca := fakeCA{newJWK(t, "admin", key, "right"), newJWK(t, "hidden", newKey(t, "EC", "P-256", "ES256"), "")}
	plain, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := []byte(ca[0].(*provisioner.JWK).EncryptedKey + "\n")
	public := key.Public()
	publicJWK, err := json.Marshal(&public)
	if err != nil {
		t.Fatal(err)
	}
	right, wrong := write("right", []byte("right\n")), write("wrong", []byte("guess"))
	for _, tt := range []struct {
		name, provisioner string
		key               []byte // of KeyFile, whose name is FILE in the errors
		passwordFile      string
		early             bool // whether Read finds it
		text, hint        string
	}{
		{name: "right", provisioner: "admin", passwordFile: right},
		{name: "wrong", provisioner: "admin", passwordFile: wrong, text: "the password in " + wrong + ` does not decrypt the key of the provisioner "admin"`},
		{name: "not handed out", provisioner: "hidden", passwordFile: right, text: `the CA does not hand out the key of the provisioner "hidden"`, hint: "--provisioner-key"},
		{name: "own key", key: plain},
		{name: "own key in PEM", key: keyPEM(t, key)},
		{name: "own key, encrypted", key: encrypted, passwordFile: right},
		{name: "own key, wrong password", key: encrypted, passwordFile: wrong, early: true, text: "the password in " + wrong + " does not decrypt the key in FILE"},
		{name: "public", key: publicJWK, early: true, text: "the key in FILE is not a private key that can be read"},
		{name: "no key", key: []byte("hunter2"), early: true, text: "the key in FILE is neither a JWK nor a private key in PEM"},
		{name: "blank", key: []byte(" \n"), early: true, text: "the key in FILE is neither a JWK nor a private key in PEM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Provisioner: tt.provisioner, PasswordFile: tt.passwordFile}
			if tt.key != nil {
				cfg.KeyFile = write(strings.ReplaceAll(tt.name, " ", "-"), tt.key)
			}
			c, err := Read(t.Context(), cfg, &target.List{})
			if (err != nil) != tt.early {
				t.Fatalf("Read: %v", err)
			}
			var proof Proof
			if err == nil {
				proof, err = c.Proof(t.Context(), ca)
			}
			if tt.text != "" {
				checkProblem(t, tt.name, err, strings.ReplaceAll(tt.text, "FILE", cfg.KeyFile), tt.hint, problem.Usage)
			} else if err != nil || proof.String() != "provisioner admin (JWK)" {
				t.Errorf("%v, %v", proof, err)
			}
		})
	}
}
