package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/cli-utils/token"
	"github.com/smallstep/cli-utils/token/provision"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/randutil"
)

// An authorizer hands out the proof that a certificate may be revoked.
type authorizer interface {
	// Token returns a one-time token for a serial number in decimal. It is
	// empty where the connection itself is the proof.
	Token(serial string) (string, error)
}

// newAuthorizer chooses the authorizer that the options ask for.
func newAuthorizer(ctx context.Context, o *options, ca authority) (authorizer, error) {
	switch {
	case o.keyFile != "":
		return certificateItself{}, nil
	case o.token != nil:
		return o.token, nil
	}
	return newProvisionerKey(ctx, o, ca)
}

// certificateItself authorizes its own revocation: over mTLS, or by its key
// having been shown to this process.
type certificateItself struct{}

func (certificateItself) Token(string) (string, error) { return "", nil }

// A givenToken is a one-time token made elsewhere. It works once, for one
// serial number.
type givenToken struct {
	raw    string
	claims jose.Claims
	sha    string   // root fingerprint that it carries, or empty
	url    *url.URL // address of the CA that it carries together with sha, or nil
}

func (t *givenToken) Token(string) (string, error) { return t.raw, nil }

// readToken reads the token of --token or --token-file, without verifying it,
// which only the CA can. Without either it returns nil. It never shows what it
// reads.
func readToken(raw, file string, given map[string]bool) (*givenToken, error) {
	if file != "" && (raw == "" || given["token-file"]) {
		if strings.HasPrefix(file, "eyJ") {
			return nil, usagef("--token-file names a file, and this is a token").hint("--token takes a token itself")
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("reading the token: %w", err)
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
		return nil, usagef("the token is not a signed JSON Web Token").hint("'step ca token --revoke SERIAL-NUMBER' makes one; --token-file reads it from a file")
	}
	t := &givenToken{raw: raw, claims: claims.Claims}
	if claims.SHA == "" || len(t.claims.Audience) == 0 || !strings.HasPrefix(strings.ToLower(t.claims.Audience[0]), "http") {
		return t, nil
	}
	if t.sha, err = parseFingerprint(claims.SHA); err != nil {
		return nil, usagef("the root fingerprint in the token is not a SHA-256 fingerprint").hint("'step ca token --revoke SERIAL-NUMBER' makes a token with the right one")
	}
	if t.url, err = parseURL(t.claims.Audience[0]); err != nil {
		return nil, fmt.Errorf("the token's audience: %w", err)
	}
	return t, nil
}

// check finds out whether the token can do what is asked, before it is spent.
func (t *givenToken) check(targets []*target) error {
	if len(targets) != 1 {
		return usagef("a token revokes one certificate, not %d", len(targets)).hint("leave out the token to revoke several with a provisioner")
	}
	serial := targets[0].serial.String()
	makeOne := "make one with: step ca token --revoke " + serial
	purpose := tokenPurpose(t.claims.Audience)
	switch subject := t.claims.Subject; {
	case purpose != "":
		return usagef("the token is for %s, not for revoking an X.509 certificate", purpose).hint("%s", makeOne)
	case subject != serial && sameSerial(subject, targets[0].serial):
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
func sameSerial(subject string, serial *big.Int) bool {
	for _, base := range []int{0, 16} {
		if n, ok := new(big.Int).SetString(strings.ReplaceAll(subject, ":", ""), base); ok && n.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

// A provisionerKey signs tokens with the private key of a JWK provisioner.
type provisionerKey struct {
	name     string
	kid      string
	audience string
	key      *jose.JSONWebKey
}

// Token signs a token that is valid for 5 minutes (token.DefaultValidity).
func (p *provisionerKey) Token(serial string) (string, error) {
	id, err := randutil.Hex(64) // 256 bits, what makes it a one-time token
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	t, err := provision.New(serial, token.WithJWTID(id), token.WithKid(p.kid), token.WithIssuer(p.name), token.WithAudience(p.audience))
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	signed, err := t.SignedString(p.key.Algorithm, p.key.Key)
	if err != nil {
		return "", fmt.Errorf("signing a token with the key of the provisioner %q: %w", p.name, err)
	}
	return signed, nil
}

// readProvisionerFiles reads the files that a provisioner's key takes, if one
// is to authorize: what is wrong with them is found before the CA is contacted.
func readProvisionerFiles(ctx context.Context, o *options) (err error) {
	if o.keyFile != "" || o.token != nil {
		return nil
	}
	if o.provisionerPasswordFile != "" {
		if o.provisionerPassword, err = readPassword(o.provisionerPasswordFile); err != nil {
			return err
		}
	} else if o.provisionerKey == "" {
		return checkTerminal("--provisioner-password-file") // the CA's own copy is always encrypted
	}
	if o.provisionerKey == "" {
		return nil
	}
	data, err := os.ReadFile(o.provisionerKey)
	if err != nil {
		return usagef("reading the provisioner's key: %w", err)
	}
	o.signingKey, err = unlock(ctx, o, data, "the key in "+o.provisionerKey)
	return err
}

// newProvisionerKey chooses a JWK provisioner of the CA and unlocks its key,
// which takes 600,000 rounds of PBKDF2 and is done once a run.
func newProvisionerKey(ctx context.Context, o *options, ca authority) (*provisionerKey, error) {
	key := o.signingKey
	all, err := ca.Provisioners(ctx)
	if err != nil {
		return nil, err
	}
	p, err := chooseProvisioner(ctx, o, key, all)
	if err != nil {
		return nil, err
	}
	if key == nil {
		_, encrypted, ok := p.GetEncryptedKey()
		if !ok {
			return nil, failf("the CA does not hand out the key of the provisioner %q", p.Name).
				hint("name the file with its private JWK with --provisioner-key")
		}
		if key, err = unlock(ctx, o, []byte(encrypted), fmt.Sprintf("the key of the provisioner %q", p.Name)); err != nil {
			return nil, err
		}
	}
	if key.Algorithm == "" {
		key.Algorithm = p.Key.Algorithm
	}
	return &provisionerKey{name: p.Name, kid: p.Key.KeyID, audience: ca.Audience(), key: key}, nil
}

// maxTries is how often a password is asked for.
const maxTries = 3

// unlock reads a private JWK and decrypts it, if it is encrypted, with the
// password in a file or one that it asks for.
func unlock(ctx context.Context, o *options, data []byte, what string) (*jose.JSONWebKey, error) {
	data = []byte(strings.TrimSpace(string(data)))
	if _, err := jose.ParseEncrypted(string(data)); err != nil {
		return parsePrivateKey(data, what)
	}
	if o.provisionerPassword != nil {
		plain, err := jose.Decrypt(data, jose.WithPassword(o.provisionerPassword))
		if err != nil {
			return nil, failf("the password in %s does not fit %s", o.provisionerPasswordFile, what)
		}
		return parsePrivateKey(plain, what)
	}
	for range maxTries {
		password, err := askPassword(ctx, "--provisioner-password-file", "Please enter the password to decrypt "+what)
		if err != nil {
			return nil, err
		}
		if plain, err := jose.Decrypt(data, jose.WithPassword(password)); err == nil && len(password) > 0 {
			return parsePrivateKey(plain, what)
		}
		sayMarked(warn, "the password is wrong")
	}
	return nil, failf("the password does not fit %s", what)
}

// parsePrivateKey reads a private JWK, or a private key in PEM. The error does
// not show any of it.
func parsePrivateKey(data []byte, what string) (*jose.JSONWebKey, error) {
	noPassword := jose.WithPasswordPrompter("", func(string) ([]byte, error) { return nil, errors.New("is encrypted") })
	if !json.Valid(data) && !strings.Contains(string(data), "PRIVATE KEY") {
		return nil, usagef("%s is neither a JWK nor a private key in PEM", what)
	}
	key, err := jose.ParseKey(data, noPassword)
	if err != nil || key.IsPublic() || !key.Valid() {
		return nil, usagef("%s is not a private key that can be read", what)
	}
	return key, nil
}

// whyNot says why step-ca takes no token for revoking from provisioners of a
// type: the subject of the token must be the serial number, and only holders of
// a signing key can choose the subject.
var whyNot = map[provisioner.Type]string{
	provisioner.TypeOIDC:   "the subject of its tokens is a user, and step-ca wants the serial number there",
	provisioner.TypeAWS:    "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeGCP:    "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeAzure:  "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeK8sSA:  "the subject of its tokens is a service account, and step-ca wants the serial number there",
	provisioner.TypeACME:   "ACME has no tokens",
	provisioner.TypeSCEP:   "SCEP has no tokens",
	provisioner.TypeSSHPOP: "it is for SSH certificates",
	provisioner.TypeNebula: "step-ca takes no revocations from it",
	provisioner.TypeX5C:    "this version cannot sign tokens for it",
}

// chooseProvisioner finds the one JWK provisioner that fits the options, and
// asks where several do.
func chooseProvisioner(ctx context.Context, o *options, key *jose.JSONWebKey, all provisioner.List) (*provisioner.JWK, error) {
	var able, fitting []*provisioner.JWK
	var names, labels []string
	for _, p := range all {
		jwk, ok := p.(*provisioner.JWK)
		switch {
		case ok:
			able = append(able, jwk)
			names = append(names, jwk.Name)
		case p.GetName() == o.provisioner && o.provisioner != "":
			return nil, failf("the provisioner %q is of type %s and cannot authorize a revocation: %s", p.GetName(), p.GetType(), whyNot[p.GetType()]).
				hint("use a JWK provisioner, or the certificate itself with --cert and --key")
		}
	}
	for _, p := range able {
		if (o.provisioner == "" || p.Name == o.provisioner) && (o.kid == "" || p.Key.KeyID == o.kid) && (key == nil || isKeyOf(key, p)) {
			fitting = append(fitting, p)
			labels = append(labels, fmt.Sprintf("%s (%s) [kid: %s]", p.Name, p.GetType(), p.Key.KeyID))
		}
	}
	switch {
	case len(able) == 0:
		return nil, failf("the CA has no JWK provisioner, and other types cannot authorize a revocation").
			hint("revoke with the certificate itself: --cert and --key")
	case o.provisioner != "" && !slices.Contains(names, o.provisioner):
		return nil, failf("the CA has no provisioner %q", o.provisioner).hint("its JWK provisioners are: %s", listOf(names))
	case len(fitting) == 0 && o.provisioner != "":
		return nil, failf("the provisioner %q has another key", o.provisioner).hint("leave out --provisioner, or check --kid and --provisioner-key")
	case len(fitting) == 0 && key != nil:
		return nil, failf("the key in %s is not that of a provisioner of this CA", o.provisionerKey).hint("its JWK provisioners are: %s", listOf(names))
	case len(fitting) == 0:
		return nil, failf("the CA has no JWK provisioner with the key ID %q", o.kid).hint("its JWK provisioners are: %s", listOf(names))
	case len(fitting) == 1:
		saySelected("Provisioner", labels[0])
		return fitting[0], nil
	}
	i, err := askChoice(ctx, "--provisioner", "Provisioner", "Which provisioner do you want to use?", labels)
	if err != nil {
		var p *problem
		if errors.As(err, &p) && p.code == exitUsage {
			return nil, p.hint("fitting are: %s", listOf(labels))
		}
		return nil, err
	}
	return fitting[i], nil
}

// isKeyOf tells whether a private key is that of a provisioner.
func isKeyOf(key *jose.JSONWebKey, p *provisioner.JWK) bool {
	a, errA := jose.Thumbprint(key)
	b, errB := jose.Thumbprint(p.Key)
	return errA == nil && errB == nil && a == b
}
