package authorize

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// certificateItself authorizes its own revocation: over mTLS, or because this
// process has seen its private key.
type certificateItself struct{}

func (certificateItself) Token(target.Serial) (string, error) { return "", nil }
func (certificateItself) Repeatable() bool                    { return true }
func (certificateItself) String() string                      { return "the certificate itself" }

// clientCertificate returns the first certificate of a chain with its key, for
// mTLS. The rest of the chain goes with it.
func clientCertificate(ctx context.Context, cfg Config, chain []*x509.Certificate) (*tls.Certificate, error) {
	leaf := chain[0]
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return nil, problem.New("the certificate in %s expired at %s and cannot authorize its own revocation", cfg.Cert, stamp(leaf.NotAfter)).
			Hint("leave out --key to revoke it with a provisioner")
	case now.Before(leaf.NotBefore):
		return nil, problem.New("the certificate in %s is not valid before %s", cfg.Cert, stamp(leaf.NotBefore)).
			Hint("check the clock, or leave out --key to revoke it with a provisioner")
	}
	key, err := cfg.Key.Read(ctx)
	if err != nil {
		return nil, err
	}
	if !input.KeyFits(key, leaf) {
		return nil, problem.New("the key in %s does not belong to the certificate in %s", cfg.Key.File, cfg.Cert)
	}
	client := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, certificate := range chain {
		client.Certificate = append(client.Certificate, certificate.Raw)
	}
	return client, nil
}
