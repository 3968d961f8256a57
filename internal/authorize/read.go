// Package authorize is who may revoke: a one-time token, a provisioner, the
// certificate itself, or the CA's host.
package authorize

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"time"

	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A Proof authorizes one revocation after the other.
type Proof interface {
	// Token returns a one-time token for a serial number. It is empty where the
	// connection itself or the CA's host is the proof.
	Token(target.Serial) (string, error)
	// Repeatable tells whether another attempt can be authorized too.
	Repeatable() bool
	// String names who authorizes.
	String() string
}

// Config says who is to authorize. The first that is set counts: Key, Token, Host,
// X5C.Cert; else it is a JWK provisioner.
type Config struct {
	Cert string        // the certificate file of Key, as errors name it
	Key  input.KeyFile // of the certificate itself, which is the list's Chain

	Token *Token
	Host  string // who it is that may write the CA's database, as outcomes name them

	X5C          X5C
	Provisioner  string // a name; empty: any provisioner that fits
	KID          string // the key ID of a JWK provisioner; empty: any
	KeyFile      string // a private JWK; empty: the one that the CA hands out
	PasswordFile string // of either; empty: the password is asked for
}

// X5C is a certificate that an X5C provisioner trusts.
type X5C struct {
	Cert  string
	Key   input.KeyFile
	Chain []string // files with more of its chain
}

// Credentials are what was read to authorize with, before the CA is contacted.
type Credentials struct {
	config     Config
	client     *tls.Certificate    // of Key
	password   []byte              // in PasswordFile, or nil
	signingKey *jose.JSONWebKey    // in KeyFile or X5C.Key, or nil
	x5c        []*x509.Certificate // the leaf first
	x5cEncoded []string            // the same, as a token carries it
}

// Certificate returns the client certificate that authorizes its own revocation,
// or nil.
func (c *Credentials) Certificate() *tls.Certificate { return c.client }

// Read reads the files that the configuration names, and checks whether they can
// authorize the revocation of the list.
func Read(ctx context.Context, cfg Config, list *target.List) (*Credentials, error) {
	c := &Credentials{config: cfg}
	var err error
	switch {
	case cfg.Key.File != "":
		c.client, err = clientCertificate(ctx, cfg, list.Chain)
	case cfg.Token != nil:
		err = cfg.Token.checkFor(list)
	case cfg.Host != "":
	case cfg.X5C.Cert != "":
		err = c.readX5C(ctx)
	default:
		err = c.readProvisionerKey(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// readProvisionerKey reads PasswordFile and KeyFile. A password that is missing
// is no error yet: the CA may have no provisioner that it is for.
func (c *Credentials) readProvisionerKey(ctx context.Context) (err error) {
	if c.config.PasswordFile != "" {
		if c.password, err = input.Password(ctx, c.config.PasswordFile, "--provisioner-password-file"); err != nil {
			return err
		}
	}
	if c.config.KeyFile == "" {
		return nil
	}
	data, err := input.Secret(ctx, c.config.KeyFile, "--provisioner-key", "the provisioner's key")
	if err != nil {
		return err
	}
	c.signingKey, err = c.unlock(ctx, data, "the key in "+c.config.KeyFile)
	return err
}

// readX5C reads the certificates and the key of X5C.
func (c *Credentials) readX5C(ctx context.Context) (err error) {
	files := c.config.X5C
	if c.x5c, err = input.Certificates(ctx, files.Cert, "--x5c-cert"); err != nil {
		return err
	}
	for _, file := range files.Chain {
		more, err := input.Certificates(ctx, file, "--x5c-chain")
		if err != nil {
			return err
		}
		c.x5c = append(c.x5c, more...)
	}
	leaf := c.x5c[0]
	if time.Now().After(leaf.NotAfter) {
		return problem.New("the certificate in %s expired at %s", files.Cert, stamp(leaf.NotAfter))
	}
	signer, err := files.Key.Read(ctx)
	if err != nil {
		return err
	}
	if !input.KeyFits(signer, leaf) {
		return problem.New("the key in %s does not belong to the certificate in %s", files.Key.File, files.Cert)
	}
	if c.x5cEncoded, err = jose.ValidateX5C(c.x5c, signer); err != nil {
		return problem.New("the certificate in %s cannot sign tokens: %w", files.Cert, err)
	}
	block, err := pemutil.Serialize(signer)
	if err == nil {
		c.signingKey, err = jose.ParseKey(pem.EncodeToMemory(block)) // which finds the algorithm for the key
	}
	if err != nil {
		return problem.New("the key in %s cannot sign tokens: %w", files.Key.File, err)
	}
	return nil
}

// stamp writes a time for an error.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
