package main

import (
	"strings"
	"testing"
	"time"

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
