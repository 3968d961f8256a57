package main

import (
	"context"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"go.step.sm/crypto/jose"
)

// A givenToken is a one-time token made elsewhere. It works once, for one
// serial number.
type givenToken struct {
	raw    string
	claims jose.Claims
	sha    string   // root fingerprint that it carries, or empty
	url    *url.URL // address of the CA that it carries together with sha, or nil
}

func (t *givenToken) Token(string) (string, error) { return t.raw, nil }
func (t *givenToken) Repeatable() bool             { return false }
func (t *givenToken) String() string               { return "token of " + t.claims.Issuer }

// readToken reads the token of --token or --token-file, without verifying it,
// which only the CA can. Without either it returns nil. It never shows what it
// reads.
func readToken(ctx context.Context, raw, file string, given map[string]bool) (*givenToken, error) {
	if file != "" && (raw == "" || given["token-file"]) {
		if strings.HasPrefix(file, "eyJ") {
			return nil, usagef("--token-file names a file, and this is a token").hint("--token takes a token itself")
		}
		data, err := readSecret(ctx, file, "the token")
		if err != nil {
			return nil, err
		}
		if raw = string(data); strings.TrimSpace(raw) == "" {
			return nil, usagef("the token file %s is empty", file)
		}
	}
	if raw = strings.TrimSpace(raw); raw == "" {
		return nil, nil
	}
	var claims struct {
		jose.Claims
		SHA string `json:"sha"`
	}
	jwt, err := jose.ParseSigned(raw)
	if err == nil {
		err = jwt.UnsafeClaimsWithoutVerification(&claims)
	}
	if err != nil {
		return nil, usagef("the token is not a signed JSON Web Token").hint("'step ca token SERIAL-NUMBER --revoke' makes one; --token-file reads it from a file")
	}
	t := &givenToken{raw: raw, claims: claims.Claims}
	if claims.SHA == "" || len(t.claims.Audience) == 0 || !strings.HasPrefix(strings.ToLower(t.claims.Audience[0]), "http") {
		return t, nil
	}
	if t.sha, err = parseFingerprint(claims.SHA); err != nil {
		return nil, usagef("the root fingerprint in the token is not a SHA-256 fingerprint").hint("'step ca token SERIAL-NUMBER --revoke' makes a token with the right one")
	}
	if t.url, err = parseURL(t.claims.Audience[0]); err != nil {
		return nil, fmt.Errorf("the token's audience: %w", err)
	}
	return t, nil
}

// check finds out whether the token can do what is asked, before it is spent.
func (t *givenToken) check(list []target) error {
	if len(list) != 1 {
		return usagef("a token revokes one certificate, not %d", len(list)).hint("leave out the token to revoke several with a provisioner")
	}
	serial := list[0].serial.String()
	makeOne := "make one with: step ca token " + serial + " --revoke" // in this order: step takes a word after --revoke for its value
	purpose := tokenPurpose(t.claims.Audience)
	switch subject := t.claims.Subject; {
	case purpose != "":
		return usagef("the token is for %s, not for revoking an X.509 certificate", purpose).hint("%s", makeOne)
	case subject != serial && sameSerial(subject, list[0].serial):
		return usagef("the token is for this serial number in another form (%s), which step-ca does not accept", subject).hint("%s", makeOne)
	case subject != serial:
		return usagef("the token is for %q, not for the serial number %s", clip(subject, 64), serial).hint("%s", makeOne)
	case t.claims.Expiry != nil && !time.Now().Before(t.claims.Expiry.Time()):
		return usagef("the token expired at %s", t.claims.Expiry.Time().UTC().Format(time.RFC3339)).hint("%s", makeOne)
	}
	return nil
}

// tokenPurpose names what a token is for, unless that is revoking. The paths
// are those of step-ca's API (authority/config, Config.GetAudiences); the word
// without a path is an audience of old, which it takes for every purpose.
func tokenPurpose(audience jose.Audience) string {
	var purpose string
	for _, a := range audience {
		if a == "step-certificate-authority" {
			return ""
		}
		u, err := url.Parse(a)
		if err != nil {
			continue
		}
		switch path := strings.TrimPrefix(u.Path, "/1.0"); path {
		case "/revoke":
			return ""
		case "/sign":
			purpose = "signing a certificate"
		case "/renew":
			purpose = "renewing a certificate"
		case "/ssh/revoke":
			purpose = "revoking an SSH certificate"
		default:
			purpose = fmt.Sprintf("the audience %q", clip(a, 100))
		}
	}
	if len(audience) == 0 {
		return "no audience"
	}
	return purpose
}

// sameSerial tells whether a token's subject means a serial number.
func sameSerial(subject string, serial serialNumber) bool {
	for _, base := range []int{0, 16} {
		if n, ok := new(big.Int).SetString(strings.ReplaceAll(subject, ":", ""), base); ok && n.Cmp(serial.big()) == 0 {
			return true
		}
	}
	return false
}
