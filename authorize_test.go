package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
)

// TestToken shows that tokens are what others read as JSON Web Tokens, with a key
// for which there is code of our own and with others.
func TestToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kty, crv, alg string }{{"EC", "P-256", "ES256"}, {"EC", "P-384", "ES384"}, {"OKP", "Ed25519", "EdDSA"}, {"RSA", "", "RS256"}} {
		key, err := jose.GenerateJWK(tt.kty, tt.crv, tt.alg, "sig", "", 2048)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newProvisionerKey(&provisioner.JWK{Name: "admin"}, "https://ca/1.0/revoke", key, "kid", key.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for range 100 {
			raw, err := p.Token("42")
			if err != nil {
				t.Fatal(err)
			}
			token, err := jose.ParseSigned(raw)
			if err != nil {
				t.Fatalf("%s: %v", tt.alg, err)
			}
			if h := token.Headers[0]; h.KeyID != key.KeyID || h.Algorithm != tt.alg || h.ExtraHeaders["typ"] != "JWT" {
				t.Fatalf("%s: header %+v", tt.alg, h)
			}
			var claims jose.Claims
			public := key.Public()
			if err := token.Claims(public.Key, &claims); err != nil {
				t.Fatalf("%s: %v", tt.alg, err)
			}
			if claims.Issuer != "admin" || claims.Subject != "42" || strings.Join(claims.Audience, " ") != "https://ca/1.0/revoke" ||
				claims.Expiry.Time().Sub(claims.NotBefore.Time()) != 5*time.Minute || time.Since(claims.IssuedAt.Time()) > time.Minute {
				t.Errorf("%s: claims %+v", tt.alg, claims)
			}
			ids[claims.ID] = true
		}
		if (p.key != nil) != (tt.alg == "ES256") || len(ids) != 100 {
			t.Errorf("%s: own code %t, %d different IDs", tt.alg, p.key != nil, len(ids))
		}
	}
}

// TestWrongPassword reads encrypted keys with wrong passwords, one of which
// leaves the padding of a whole key.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	//lint:ignore SA1019 with no other encryption such a password is found this fast
	block, err := x509.EncryptPEMBlock(rand.Reader, "PRIVATE KEY", der, []byte("right"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, plain := write("encrypted", pem.EncodeToMemory(block)), write("plain", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	broken := write("broken", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[1:]}))
	padded := "wrong"
	for i := 0; ; i++ {
		//lint:ignore SA1019 see above
		if _, err := x509.DecryptPEMBlock(block, []byte(padded)); err == nil {
			break
		}
		padded = fmt.Sprint("wrong ", i)
	}
	for _, tt := range []struct{ file, password, wantErr string }{
		{file: encrypted, password: "right"},
		{file: encrypted, password: "wrong", wantErr: "does not fit"},
		{file: encrypted, password: padded, wantErr: "does not fit"},
		{file: plain, password: "wrong"},
		{file: broken, password: "wrong", wantErr: "error parsing"},
	} {
		passwordFile := write("password", []byte(tt.password))
		_, err := readKey(t.Context(), tt.file, passwordFile, keyFlags{})
		f := &offline{options: &options{caPasswordFile: passwordFile}, password: []byte(tt.password), config: &config.Config{IntermediateKey: tt.file}}
		_, caErr := f.readCAKey(t.Context())
		for _, err := range []error{err, caErr} {
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%s with the password %q: %v, want %q", filepath.Base(tt.file), tt.password, err, tt.wantErr)
			}
		}
	}
}
