package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/cli-utils/token"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// An authorizer hands out the proof that a certificate may be revoked.
type authorizer interface {
	// Token returns a one-time token for a serial number in decimal. It is
	// empty where the connection itself is the proof.
	Token(serial string) (string, error)
	// Repeatable tells whether there is another proof for another attempt.
	Repeatable() bool
	// String names who authorizes.
	String() string
}

// newAuthorizer chooses the authorizer that the options ask for.
func newAuthorizer(ctx context.Context, o *options, ca authority) (authorizer, error) {
	switch {
	case o.looks():
		return named{}, nil // nobody
	case o.keyFile != "":
		return certificateItself{}, nil
	case o.token != nil:
		return o.token, nil
	}
	p, err := newProvisioner(ctx, o, ca)
	if err == nil && o.dryRun {
		return tested(p)
	}
	return p, err
}

// tested is a provisioner that is known to be able to sign a token, and will
// not be asked for one.
func tested(p *provisionerKey) (authorizer, error) {
	_, err := p.Token("1")
	return named{p.String()}, err
}

// named authorizes nothing, in the name of somebody who could.
type named struct{ name string }

func (named) Token(string) (string, error) { return "", nil }
func (named) Repeatable() bool             { return false }
func (n named) String() string             { return n.name }

// certificateItself authorizes its own revocation: over mTLS, or by its key
// having been shown to this process.
type certificateItself struct{}

func (certificateItself) Token(string) (string, error) { return "", nil }
func (certificateItself) Repeatable() bool             { return true }
func (certificateItself) String() string               { return "the certificate itself" }

// A provisionerKey signs tokens in the name of a provisioner: with the private
// key of a JWK provisioner, or that of a certificate that an X5C provisioner
// trusts.
type provisionerKey struct {
	provisioner provisioner.Interface
	audience    string
	signer      jose.Signer
	key         *ecdsa.PrivateKey // for ES256, which step-ca uses unless told otherwise, or nil
	header      string            // of its tokens, encoded
}

// newProvisionerKey prepares to sign. The header names the key: by its ID, or by
// its certificate chain.
func newProvisionerKey(p provisioner.Interface, audience string, key *jose.JSONWebKey, header jose.HeaderKey, value any) (*provisionerKey, error) {
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader(header, value)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key.Key}, opts)
	if err != nil {
		return nil, fmt.Errorf("signing for the provisioner %q: %w", p.GetName(), err)
	}
	signed := &provisionerKey{provisioner: p, audience: audience, signer: signer}
	if private, ok := key.Key.(*ecdsa.PrivateKey); ok && key.Algorithm == jose.ES256 && private.Curve == elliptic.P256() {
		first, err := signed.Token("1")
		if err != nil {
			return nil, err
		}
		signed.header, _, _ = strings.Cut(first, ".")
		signed.key = private
	}
	return signed, nil
}

// sign makes a JSON Web Token of claims, in the compact form. With ES256 only
// the claims and the signature differ from one token to the next, and nothing
// else is done: on a host that the CA shares that counts (make bench). The
// signature is deterministic (RFC 6979), and in the form of RFC 7518, section
// 3.4.
func (p *provisionerKey) sign(claims []byte) (string, error) {
	if p.key == nil {
		signed, err := p.signer.Sign(claims)
		if err != nil {
			return "", err
		}
		return signed.CompactSerialize()
	}
	input := p.header + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(input))
	der, err := p.key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return "", err
	}
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &pair); err != nil {
		return "", err
	}
	var signature [64]byte
	pair.R.FillBytes(signature[:32])
	pair.S.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}

// Token signs a token that is valid for 5 minutes (token.DefaultValidity). Its
// audience is a string, as in those of step, and no list.
func (p *provisionerKey) Token(serial string) (string, error) {
	now := time.Now()
	claims, err := json.Marshal(struct {
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		Audience  string `json:"aud"`
		IssuedAt  int64  `json:"iat"`
		NotBefore int64  `json:"nbf"`
		Expiry    int64  `json:"exp"`
		ID        string `json:"jti"` // what makes it a one-time token
	}{p.provisioner.GetName(), serial, p.audience, now.Unix(), now.Unix(), now.Add(token.DefaultValidity).Unix(), rand.Text()})
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	signed, err := p.sign(claims)
	if err != nil {
		return "", fmt.Errorf("signing a token for %s: %w", p, err)
	}
	return signed, nil
}

func (p *provisionerKey) Repeatable() bool { return true }

func (p *provisionerKey) String() string {
	return fmt.Sprintf("provisioner %s (%s)", p.provisioner.GetName(), p.provisioner.GetType())
}

// readCredentials reads the files that a provisioner's token takes, if one is to
// authorize: what is wrong with them is found before the CA is contacted.
func readCredentials(ctx context.Context, o *options) (err error) {
	switch {
	case o.keyFile != "" || o.token != nil:
		return nil
	case o.x5cCert != "":
		return readX5C(ctx, o)
	case o.provisionerPasswordFile != "":
		if o.provisionerPassword, err = readPassword(ctx, o.provisionerPasswordFile); err != nil {
			return err
		}
	}
	switch {
	case o.provisionerKey != "":
		data, err := readSecret(ctx, o.provisionerKey, "the provisioner's key")
		if err == nil {
			o.signingKey, err = unlock(ctx, o, data, "the key in "+o.provisionerKey)
		}
		return err
	case o.provisionerPassword == nil:
		return checkTerminal("--provisioner-password-file") // the CA's own copy is always encrypted
	}
	return nil
}

// readX5C reads the certificates and the key of --x5c-cert, --x5c-chain and
// --x5c-key.
func readX5C(ctx context.Context, o *options) error {
	var chain []*x509.Certificate
	for i, file := range append([]string{o.x5cCert}, o.x5cChain...) {
		flag := "--x5c-cert"
		if i > 0 {
			flag = "--x5c-chain"
		}
		certs, err := readBundle(ctx, file, flag)
		if err != nil {
			return err
		}
		chain = append(chain, certs...)
	}
	if leaf := chain[0]; time.Now().After(leaf.NotAfter) {
		return usagef("the certificate in %s expired at %s", o.x5cCert, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	signer, err := readKey(ctx, o.x5cKey, o.provisionerPasswordFile, keyFlags{"--x5c-key", "--x5c-cert", "--provisioner-password-file"})
	if err != nil {
		return err
	}
	if !isKeyPair(signer, chain[0]) {
		return usagef("the key in %s does not belong to the certificate in %s", o.x5cKey, o.x5cCert)
	}
	if o.x5cEncoded, err = jose.ValidateX5C(chain, signer); err != nil {
		return usagef("the certificate in %s cannot sign tokens: %w", o.x5cCert, err)
	}
	o.x5cCerts = chain
	block, err := pemutil.Serialize(signer)
	if err == nil {
		o.signingKey, err = jose.ParseKey(pem.EncodeToMemory(block)) // knows which algorithm fits the key
	}
	if err != nil {
		return usagef("the key in %s cannot sign tokens: %w", o.x5cKey, err)
	}
	return nil
}

// newProvisioner chooses a provisioner of the CA to sign tokens for. The key of
// a JWK provisioner is unlocked, unless it was given, which takes 600,000 rounds
// of PBKDF2 and is done once a run. A token for an X5C provisioner must have its
// name in the audience (authority/provisioner/collection.go, LoadByToken).
func newProvisioner(ctx context.Context, o *options, ca authority) (*provisionerKey, error) {
	chosen, err := chooseProvisioner(ctx, o, ca)
	if err != nil {
		return nil, err
	}
	p, ok := chosen.(*provisioner.JWK)
	if !ok {
		name := url.URL{Fragment: chosen.GetIDForToken()}
		return newProvisionerKey(chosen, ca.Audience()+name.String(), o.signingKey, "x5c", o.x5cEncoded)
	}
	key := o.signingKey
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
	return newProvisionerKey(p, ca.Audience(), key, "kid", p.Key.KeyID)
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
}

// chooseProvisioner finds the one provisioner that fits the options, and asks
// where several do. With the flags for X5C it is of that type, else a JWK one.
func chooseProvisioner(ctx context.Context, o *options, ca authority) (provisioner.Interface, error) {
	all, err := ca.Provisioners(ctx)
	if err != nil {
		return nil, err
	}
	fitting, err := fittingProvisioners(o, all)
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, p := range fitting {
		label := fmt.Sprintf("%s (%s)", p.GetName(), p.GetType())
		if jwk, ok := p.(*provisioner.JWK); ok {
			label += fmt.Sprintf(" [kid: %s]", jwk.Key.KeyID)
		}
		labels = append(labels, label)
	}
	if len(fitting) == 1 {
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

// fittingProvisioners are those of all that the options leave, one at least.
func fittingProvisioners(o *options, all provisioner.List) (fitting []provisioner.Interface, err error) {
	wanted := provisioner.TypeJWK
	if o.x5cCert != "" {
		wanted = provisioner.TypeX5C
	}
	var names []string
	var untrusted error
	for _, p := range all {
		if p.GetType() != wanted {
			if o.provisioner != "" && p.GetName() == o.provisioner {
				return nil, unfit(p, wanted)
			}
			continue
		}
		names = append(names, p.GetName())
		if o.provisioner != "" && p.GetName() != o.provisioner {
			continue
		}
		switch p := p.(type) {
		case *provisioner.JWK:
			if o.kid != "" && p.Key.KeyID != o.kid || o.signingKey != nil && !isKeyOf(o.signingKey, p) {
				continue
			}
		case *provisioner.X5C:
			if err := checkTrust(p, o.x5cCerts); err != nil {
				untrusted = err
				continue
			}
		}
		fitting = append(fitting, p)
	}
	if len(fitting) == 0 {
		return nil, noneFits(o, wanted, names, untrusted)
	}
	return fitting, nil
}

// noneFits says why no provisioner fits. names are those of the wanted type;
// untrusted is why the last of them does not trust the X5C certificate.
func noneFits(o *options, wanted provisioner.Type, names []string, untrusted error) *problem {
	its := fmt.Sprintf("its %s provisioners are: %s", wanted, listOf(names))
	switch {
	case len(names) == 0:
		return failf("the CA has no %s provisioner to authorize the revocation", wanted).
			hint("only JWK and X5C provisioners can (X5C: --x5c-cert and --x5c-key); or the certificate itself, with --cert and --key")
	case o.provisioner != "" && !slices.Contains(names, o.provisioner):
		return failf("the CA has no provisioner %q", o.provisioner).hint("%s", its)
	case untrusted != nil:
		who := "the CA has no X5C provisioner that trusts"
		if o.provisioner != "" {
			who = fmt.Sprintf("the provisioner %q does not trust", o.provisioner)
		}
		return failf("%s the certificate in %s: %w", who, o.x5cCert, untrusted).
			hint("what leads from it to a root of the provisioner belongs into the same file or into --x5c-chain")
	case o.provisioner != "":
		return failf("the provisioner %q has another key", o.provisioner).hint("leave out --provisioner, or check --kid and --provisioner-key")
	case o.signingKey != nil:
		return failf("the key in %s is not that of a provisioner of this CA", o.provisionerKey).hint("%s", its)
	}
	return failf("the CA has no JWK provisioner with the key ID %q", o.kid).hint("%s", its)
}

// unfit says why a provisioner that was named is not used.
func unfit(p provisioner.Interface, wanted provisioner.Type) *problem {
	switch p.GetType() {
	case provisioner.TypeX5C:
		return failf("the provisioner %q is of type X5C", p.GetName()).hint("authorize with a certificate that it trusts: --x5c-cert and --x5c-key")
	case provisioner.TypeJWK:
		return failf("the provisioner %q is of type JWK and not %s", p.GetName(), wanted).hint("leave out --x5c-cert and --x5c-key, or their variables STEP_X5C_CERT and STEP_X5C_KEY")
	}
	return failf("the provisioner %q is of type %s and cannot authorize a revocation: %s", p.GetName(), p.GetType(), whyNot[p.GetType()]).
		hint("use a JWK or X5C provisioner, or the certificate itself with --cert and --key")
}

// checkTrust finds out whether an X5C provisioner will take tokens that are
// signed for a certificate (authority/provisioner/x5c.go, X5C.authorizeToken).
func checkTrust(p *provisioner.X5C, chain []*x509.Certificate) error {
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	opts.Roots.AppendCertsFromPEM(p.Roots)
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// isKeyOf tells whether a private key is that of a provisioner.
func isKeyOf(key *jose.JSONWebKey, p *provisioner.JWK) bool {
	a, errA := jose.Thumbprint(key)
	b, errB := jose.Thumbprint(p.Key)
	return errA == nil && errB == nil && a == b
}
