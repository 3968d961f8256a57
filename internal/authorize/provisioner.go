package authorize

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/cli-utils/token"
	"go.step.sm/crypto/jose"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A CA knows who may authorize.
type CA interface {
	// Provisioners returns all of the CA's provisioners.
	Provisioners(context.Context) (provisioner.List, error)
	// Audience is the audience that tokens for revoking must have.
	Audience() string
}

// Proof returns what authorizes the revocations at a CA. It chooses a
// provisioner, asks which where several fit, and unlocks its key.
func (c *Credentials) Proof(ctx context.Context, ca CA) (Proof, error) {
	switch given := c.config.Token; {
	case c.client != nil:
		return certificateItself{}, nil
	case given != nil:
		return givenToken{raw: given.raw, issuer: given.claims.Issuer}, nil
	case c.config.Host != "":
		ui.Selected("Authorized by", c.config.Host)
		return theHost(c.config.Host), nil
	}
	chosen, err := c.chooseProvisioner(ctx, ca)
	if err != nil {
		return nil, err
	}
	p, err := c.prepare(ctx, chosen, ca.Audience())
	if err != nil {
		return nil, err
	}
	return p, nil
}

// A provisionerKey signs tokens in the name of a provisioner: with the private
// key of a JWK provisioner, or that of a certificate that an X5C provisioner
// trusts.
type provisionerKey struct {
	provisioner provisioner.Interface
	audience    string
	sign        signer
}

// A signer makes a JSON Web Token of claims, in the compact form.
type signer func(claims []byte) (string, error)

// newProvisionerKey prepares to sign. The header names the key: by its ID, or by
// its certificate chain.
func newProvisionerKey(p provisioner.Interface, audience string, key *jose.JSONWebKey, header jose.HeaderKey, value any) (*provisionerKey, error) {
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader(header, value)
	withJOSE, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key.Key}, opts)
	if err != nil {
		return nil, fmt.Errorf("signing for the provisioner %q: %w", p.GetName(), err)
	}
	sign := func(claims []byte) (string, error) {
		signed, err := withJOSE.Sign(claims)
		if err != nil {
			return "", err
		}
		return signed.CompactSerialize()
	}
	k := &provisionerKey{provisioner: p, audience: audience}
	if k.sign, err = withES256(key, sign); err != nil {
		return nil, fmt.Errorf("signing a token for %s: %w", k, err)
	}
	return k, nil
}

// Token signs a token that is valid for 5 minutes (token.DefaultValidity). Its
// audience is a string and not a list, as in the tokens of step.
func (k *provisionerKey) Token(serial target.Serial) (string, error) {
	now := time.Now()
	claims, err := json.Marshal(struct {
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		Audience  string `json:"aud"`
		IssuedAt  int64  `json:"iat"`
		NotBefore int64  `json:"nbf"`
		Expiry    int64  `json:"exp"`
		ID        string `json:"jti"` // by which step-ca knows a token that was used before
	}{
		Issuer: k.provisioner.GetName(), Subject: serial.String(), Audience: k.audience,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: now.Add(token.DefaultValidity).Unix(), ID: rand.Text(),
	})
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	signed, err := k.sign(claims)
	if err != nil {
		return "", fmt.Errorf("signing a token for %s: %w", k, err)
	}
	return signed, nil
}

func (k *provisionerKey) Repeatable() bool { return true }

func (k *provisionerKey) String() string {
	return fmt.Sprintf("provisioner %s (%s)", k.provisioner.GetName(), k.provisioner.GetType())
}

// prepare gets hold of the key that signs for a provisioner. That of a JWK
// provisioner is unlocked, unless it was given: 600,000 rounds of PBKDF2, once a
// run. A token for an X5C provisioner must have its name in the audience
// (authority/provisioner/collection.go, LoadByToken).
func (c *Credentials) prepare(ctx context.Context, chosen provisioner.Interface, audience string) (*provisionerKey, error) {
	p, ok := chosen.(*provisioner.JWK)
	if !ok {
		name := url.URL{Fragment: chosen.GetIDForToken()}
		return newProvisionerKey(chosen, audience+name.String(), c.signingKey, "x5c", c.x5cEncoded)
	}
	key := c.signingKey
	if key == nil {
		_, encrypted, ok := p.GetEncryptedKey()
		if !ok {
			return nil, problem.New("the CA does not hand out the key of the provisioner %q", p.Name).
				Hint("name the file with its private JWK with --provisioner-key")
		}
		var err error
		if key, err = c.unlock(ctx, []byte(encrypted), fmt.Sprintf("the key of the provisioner %q", p.Name)); err != nil {
			return nil, err
		}
	}
	if key.Algorithm == "" {
		key.Algorithm = p.Key.Algorithm
	}
	return newProvisionerKey(p, audience, key, "kid", p.Key.KeyID)
}

// unlock reads a private JWK. If that is encrypted, it decrypts it with the
// password that was given, or asks for one.
func (c *Credentials) unlock(ctx context.Context, data []byte, what string) (*jose.JSONWebKey, error) {
	data = bytes.TrimSpace(data)
	if _, err := jose.ParseEncrypted(string(data)); err != nil {
		return parsePrivateKey(data, what)
	}
	var plain []byte
	fits := func(password []byte) bool {
		if len(password) == 0 { // with which jose.Decrypt asks for one by itself
			return false
		}
		decrypted, err := jose.Decrypt(data, jose.WithPassword(password))
		plain = decrypted
		return err == nil
	}
	if c.password != nil {
		if !fits(c.password) {
			return nil, problem.WithCode(problem.Usage, "the password in %s does not decrypt %s", c.config.PasswordFile, what)
		}
		return parsePrivateKey(plain, what)
	}
	switch err := ui.AskPassword(ctx, "--provisioner-password-file", "Please enter the password to decrypt "+what, fits); {
	case errors.Is(err, ui.ErrWrongPassword):
		return nil, problem.WithCode(problem.Usage, "the password does not decrypt %s", what)
	case err != nil:
		return nil, err
	}
	return parsePrivateKey(plain, what)
}

// parsePrivateKey reads a private JWK, or a private key in PEM. The error does
// not show any of it.
func parsePrivateKey(data []byte, what string) (*jose.JSONWebKey, error) {
	noPassword := jose.WithPasswordPrompter("", func(string) ([]byte, error) { return nil, errors.New("is encrypted") })
	if !json.Valid(data) && !bytes.Contains(data, []byte("PRIVATE KEY")) {
		return nil, problem.New("%s is neither a JWK nor a private key in PEM", what)
	}
	key, err := jose.ParseKey(data, noPassword)
	if err != nil || key.IsPublic() || !key.Valid() {
		return nil, problem.New("%s is not a private key that can be read", what)
	}
	return key, nil
}
