package authorize

import (
	"context"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A Token is a one-time token made elsewhere. It works once, for one serial
// number. Only the CA can verify it: nothing in it is proven.
type Token struct {
	// Audience and Root are the address of the CA and the SHA-256 fingerprint of
	// its root, as the token has them. Both are empty unless it has both.
	Audience, Root string

	raw    string
	claims jose.Claims
}

// ReadToken reads a token, from a file if one is named. Without either it
// returns nil. Its errors do not show what it has read.
func ReadToken(ctx context.Context, raw, file string) (*Token, error) {
	if file != "" {
		if strings.HasPrefix(file, "eyJ") {
			return nil, problem.New("--token-file names a file, and this is a token").Hint("--token takes a token itself")
		}
		data, err := input.Secret(ctx, file, "--token-file", "the token")
		if err != nil {
			return nil, err
		}
		if raw = string(data); strings.TrimSpace(raw) == "" {
			return nil, problem.New("the token file %s is empty", file)
		}
	}
	if raw = strings.TrimSpace(raw); raw == "" {
		return nil, nil
	}
	var claims struct {
		jose.Claims
		SHA string `json:"sha"` // of the root (step's token.Claims)
	}
	jwt, err := jose.ParseSigned(raw)
	if err == nil {
		err = jwt.UnsafeClaimsWithoutVerification(&claims)
	}
	if err != nil {
		return nil, problem.New("the token is not a signed JSON Web Token").Hint("'step ca token SERIAL-NUMBER --revoke' makes one; --token-file reads it from a file")
	}
	t := &Token{raw: raw, claims: claims.Claims}
	if aud := claims.Audience; claims.SHA != "" && len(aud) > 0 && strings.HasPrefix(strings.ToLower(aud[0]), "http") {
		t.Audience, t.Root = aud[0], claims.SHA
	}
	return t, nil
}

// A givenToken is a Token as a proof.
type givenToken struct{ raw, issuer string }

func (t givenToken) Token(target.Serial) (string, error) { return t.raw, nil }
func (givenToken) Repeatable() bool                      { return false }
func (t givenToken) String() string                      { return "token of " + t.issuer }

// checkFor finds out whether the token can authorize the revocation of a list,
// before it is spent.
func (t *Token) checkFor(list *target.List) error {
	if len(list.All) != 1 {
		return problem.New("a token revokes one certificate, not %d", len(list.All)).Hint("leave out the token to revoke several with a provisioner")
	}
	serial := list.All[0].Serial
	makeOne := fmt.Sprintf("make one with: step ca token %s --revoke", serial) // in this order: step takes a word after --revoke for its value
	purpose := tokenPurpose(t.claims.Audience)
	switch subject := t.claims.Subject; {
	case purpose != "":
		return problem.New("the token is for %s, not for revoking an X.509 certificate", purpose).Hint("%s", makeOne)
	case subject == serial.String():
	case isSerial(subject, serial):
		return problem.New("the token is for this serial number in another form (%.64s), which step-ca does not accept", subject).Hint("%s", makeOne)
	default:
		return problem.New("the token is for %.64q, not for the serial number %s", subject, serial).Hint("%s", makeOne)
	}
	if expiry := t.claims.Expiry; expiry != nil && !time.Now().Before(expiry.Time()) {
		return problem.New("the token expired at %s", stamp(expiry.Time())).Hint("%s", makeOne)
	}
	return nil
}

// purposes are what tokens are for, by their paths in step-ca's API
// (authority/config, Config.GetAudiences). An empty purpose is revoking.
var purposes = map[string]string{
	"/revoke":     "",
	"/sign":       "signing a certificate",
	"/renew":      "renewing a certificate",
	"/ssh/revoke": "revoking an SSH certificate",
}

// tokenPurpose names what a token with this audience is for. It is empty if that
// is revoking, or if nothing can be said.
func tokenPurpose(audience jose.Audience) string {
	if len(audience) == 0 {
		return "no audience"
	}
	purpose := ""
	for _, a := range audience {
		if a == "step-certificate-authority" {
			return "" // the audience of old tokens, which step-ca takes for every purpose
		}
		u, err := url.Parse(a)
		if err != nil {
			continue
		}
		known := false
		if purpose, known = purposes[strings.TrimPrefix(u.Path, "/1.0")]; !known {
			purpose = fmt.Sprintf("the audience %.100q", a)
		}
		if purpose == "" {
			return ""
		}
	}
	return purpose
}

// isSerial tells whether a token's subject means a serial number, in whatever
// form.
func isSerial(subject string, serial target.Serial) bool {
	for _, base := range []int{0, 16} {
		if n, ok := new(big.Int).SetString(strings.ReplaceAll(subject, ":", ""), base); ok && n.Cmp(serial.Big()) == 0 {
			return true
		}
	}
	return false
}
