// Package online is a CA that is reached over HTTPS.
package online

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/smallstep/certificates/api"
	"go.step.sm/crypto/x509util"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// DefaultConcurrency is how many revocations are in flight unless told
// otherwise, as measured: step-ca with a database in files would gain a fifth
// from 128, but one on PostgreSQL runs out of connections at 100.
const DefaultConcurrency = 64

// Config is where the CA is and how to trust it.
type Config struct {
	URL         *url.URL
	Roots       []*x509.Certificate // whom to trust; nil is whoever has a root with this fingerprint:
	Fingerprint string              // SHA-256, hexadecimal in lower case
	Timeout     time.Duration       // for one request
	RetryFor    time.Duration       // how long to repeat questions, all of them together; 0 is not at all
	Concurrency int                 // revocations in flight; 0 is DefaultConcurrency
	UserAgent   string              // in the CA's log
}

// A CA is a step-ca that is online. It is reached on one connection for the run
// and, with a client certificate, one more.
type CA struct {
	*client                  // which presents no certificate
	revoking            way  // on the same connection, unless it presents a certificate
	presentsCertificate bool // which the CA may refuse late
}

// Connect prepares the connection to a CA. It contacts the CA only to fetch a
// root certificate by its fingerprint. With a client certificate, revocations
// present it; questions do not, because a CA that rejects it just hangs up, often
// before it has said why.
func Connect(ctx context.Context, cfg Config, certificate *tls.Certificate) (*CA, error) {
	if err := checkProxy(os.Getenv); err != nil {
		return nil, err
	}
	cfg.Concurrency = cmp.Or(cfg.Concurrency, DefaultConcurrency)
	ui.Selected("CA", cfg.URL.String())
	var spent time.Duration
	if cfg.Roots == nil {
		root, took, err := fetchRoot(ctx, cfg)
		if err != nil {
			return nil, problem.Default(err, problem.Failed) // the CA was contacted
		}
		cfg.Roots, spent = []*x509.Certificate{root}, took
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, root := range cfg.Roots {
		trust.RootCAs.AddCert(root)
	}
	c := &CA{client: newClient(cfg, trust), presentsCertificate: certificate != nil}
	c.spent, c.revoking = spent, c.way
	if certificate != nil {
		presenting := trust.Clone()
		// Whatever issuers the CA names as acceptable: it shall judge this
		// certificate, rather than see none.
		presenting.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
		c.revoking = newWay(cfg, presenting) // which sends no token
	}
	return c, nil
}

const fingerprintHint = "check it, and --ca-url: 'step certificate fingerprint root_ca.crt' prints the right one on the CA's host"

// fetchRoot fetches the root certificate with the configured fingerprint, from
// whoever answers, and tells how long that took. It sends nothing secret.
func fetchRoot(ctx context.Context, cfg Config) (root *x509.Certificate, took time.Duration, err error) {
	asked := "asked for the root certificate with the fingerprint " + cfg.Fingerprint
	anybody := newClient(cfg, &tls.Config{InsecureSkipVerify: true})
	defer anybody.transport.CloseIdleConnections()
	var answer api.RootResponse
	err = anybody.get(ctx, asked, exchange{path: "1.0/root/" + cfg.Fingerprint, limit: maxCertificates, read: into(&answer)})
	if r, ok := asRefusal(err); ok && r.status == http.StatusNotFound {
		return nil, 0, problem.New("the CA at %s has no root certificate with the fingerprint %s: %w", cfg.URL, cfg.Fingerprint, r).Hint(fingerprintHint)
	}
	if err != nil {
		return nil, 0, err
	}
	root = answer.RootPEM.Certificate
	if root == nil || x509util.Fingerprint(root) != cfg.Fingerprint {
		return nil, 0, problem.New("the CA at %s was %s and answered with another one", cfg.URL, asked).Hint(fingerprintHint)
	}
	return root, anybody.spent, nil
}

// Audience is the audience that tokens for revoking at this CA have. step-ca
// does not compare its port (authority/config, Config.GetAudiences).
func (c *CA) Audience() string { return c.url.JoinPath("1.0", "revoke").String() }

// Issuers returns the certificates that this CA issues with: its intermediates
// and the roots.
func (c *CA) Issuers(ctx context.Context) ([]*x509.Certificate, error) {
	issuers, _, err := c.issuers(ctx)
	return issuers, err
}

// Bounds of the certificates that a CA issues with. Each may be tried on a CRL
// and on all targets, which large keys would make take hours.
const (
	maxIntermediates = 20
	maxRSA           = 8192 // bits, as in crypto/tls
)

func checkIntermediates(list []api.Certificate) error {
	if len(list) > maxIntermediates {
		return badAnswer("it has more than %d certificates", maxIntermediates)
	}
	for _, c := range list {
		if c.Certificate == nil {
			return badAnswer("one of its certificates is empty")
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return badAnswer("one of its keys has more than %d bits", maxRSA)
		}
	}
	return nil
}

// issuers leaves out intermediates that are neither in the chain of the CA's own
// certificate nor signed by a certificate of it: whoever holds any certificate under
// the root could list others. It also returns the refusal of a CA that does not list its
// intermediates, or nil. An older step-ca does not know the question (404); a
// registration authority has none (501). Either shows those of its issuer in the
// chain of its own certificate.
func (c *CA) issuers(ctx context.Context) (issuers []*x509.Certificate, refused *refusal, err error) {
	var list api.IntermediatesResponse
	err = c.get(ctx, "asked for its intermediate certificates", exchange{path: "1.0/intermediates", limit: maxCertificates, read: func(body io.Reader) error {
		if _, err := readJSON(body, &list); err != nil {
			return err
		}
		return checkIntermediates(list.Certificates)
	}})
	refused, _ = asRefusal(err)
	if err != nil && refused == nil {
		return nil, nil, err
	}
	// Of the trusted roots, only those count that this CA has shown to be its
	// own: a file may also hold those of other CAs.
	var proven []*x509.Certificate
	for _, chain := range *c.chains.Load() {
		issuers, proven = append(issuers, chain[len(chain)-1]), append(proven, chain[1:]...)
	}
	if refused != nil {
		return append(issuers, proven...), refused, nil
	}
	proven = append(proven, issuers...)
	for _, intermediate := range list.Certificates {
		if slices.ContainsFunc(proven, func(c *x509.Certificate) bool {
			return intermediate.Equal(c) || intermediate.CheckSignatureFrom(c) == nil
		}) {
			issuers = append(issuers, intermediate.Certificate)
		}
	}
	return issuers, nil, nil
}

// Evidence returns the CA's CRL, which one of its issuers must have signed and
// which must not be out of date. Its questions have a time of their own.
func (c *CA) Evidence(ctx context.Context) (revocation.Evidence, error) {
	c.spent = 0
	issuers, unlisted, err := c.issuers(ctx)
	if err != nil {
		return nil, err
	}
	var der []byte
	err = c.get(ctx, "asked for its CRL", exchange{path: "1.0/crl", limit: maxCRL, read: func(body io.Reader) (err error) {
		der, err = readDER(body, maxCRL)
		return err
	}})
	switch r, refused := asRefusal(err); {
	case refused && unlisted != nil && unlisted.status == http.StatusNotImplemented:
		return nil, problem.New("a registration authority has no CRL: %w", r).
			Hint("its CA makes the CRL: --dry-run --verify shows it, with the --ca-url of the CA itself")
	case refused && r.status == http.StatusNotFound:
		return nil, problem.New("%w %s", revocation.ErrNoCRL, r.identity()).Hint(revocation.NoCRLHint)
	case err != nil:
		return nil, err
	}
	crl, err := revocation.ReadCRL(der, issuers)
	if err != nil {
		return nil, err // and no *CRL that is nil
	}
	return crl, nil
}

// CRLNumber returns the number of the CA's CRL, which is not verified. It asks once,
// and reads no CRL that is very large.
func (c *CA) CRLNumber(ctx context.Context) (number *big.Int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var der []byte
	_, err = c.send(ctx, exchange{method: http.MethodGet, path: "1.0/crl", limit: maxLook, read: func(body io.Reader) (err error) {
		der, err = readDER(body, maxLook)
		return err
	}})
	if err != nil {
		return nil, explain(c.url, "asked for its CRL", err)
	}
	return revocation.NumberOf(der)
}

// Concurrency is how many revocations to have in flight: as many as are wanted,
// or DefaultConcurrency where that is 0.
func (c *CA) Concurrency(wanted int) int { return cmp.Or(wanted, DefaultConcurrency) }

// Open has nothing to open: a CA that is online does not tell which serial
// numbers it knows.
func (c *CA) Open(context.Context, *target.List) error { return nil }

// Contacted is always true: all errors after Connect come from contacting the
// CA.
func (c *CA) Contacted() bool { return true }

// Close lets go of the connections.
func (c *CA) Close(context.Context) error {
	c.transport.CloseIdleConnections()
	c.revoking.transport.CloseIdleConnections()
	return nil
}
