// Package online is a CA that is reached over HTTPS.
package online

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/ca"
	requestid "github.com/smallstep/certificates/ca/client"
	"go.step.sm/crypto/randutil"
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
	RetryFor    time.Duration       // how long to repeat a question; 0 is not at all
	Concurrency int                 // revocations in flight; 0 is DefaultConcurrency
	UserAgent   string              // in the CA's log; the first one counts for the whole process
}

// A CA is a step-ca that is online. It is reached on one connection for the run
// and, with a client certificate, one more.
type CA struct {
	*client                        // which presents no certificate
	api                 *ca.Client // on the same connection, unless it presents a certificate
	presentsCertificate bool       // which the CA may refuse late
}

// setGlobals sets what package ca reads from global variables. A default
// identity (config/identity.json) would displace our own transport.
var setGlobals sync.Once

// Connect prepares the connection to a CA. It contacts the CA only to fetch a
// root certificate by its fingerprint. With a client certificate, revocations
// present it; questions do not, because a CA that rejects it just hangs up, often
// before it has said why.
func Connect(ctx context.Context, cfg Config, certificate *tls.Certificate) (*CA, error) {
	setGlobals.Do(func() { ca.DisableIdentity, ca.UserAgent = true, cfg.UserAgent })
	cfg.Concurrency = cmp.Or(cfg.Concurrency, DefaultConcurrency)
	ui.Selected("CA", cfg.URL.String())
	if cfg.Roots == nil {
		root, err := fetchRoot(ctx, cfg)
		if err != nil {
			return nil, problem.Default(err, problem.Failed) // the CA was contacted
		}
		cfg.Roots = []*x509.Certificate{root}
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, root := range cfg.Roots {
		trust.RootCAs.AddCert(root)
	}
	c := &CA{client: newClient(cfg, trust), presentsCertificate: certificate != nil}
	transport := c.http.Transport
	if certificate != nil {
		presenting := trust.Clone()
		// Whatever issuers the CA names as acceptable: it shall judge this
		// certificate, rather than see none.
		presenting.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
		transport = newGuard(presenting, cfg.Concurrency)
	}
	var err error
	if c.api, err = ca.NewClient(cfg.URL.String(), ca.WithTransport(transport), ca.WithTimeout(0)); err != nil {
		return nil, problem.Wrap(err, "preparing the connection to %s", cfg.URL)
	}
	return c, nil
}

const fingerprintHint = "check it, and --ca-url: 'step certificate fingerprint root_ca.crt' prints the right one on the CA's host"

// fetchRoot fetches the root certificate with the configured fingerprint, from
// whoever answers. It sends nothing secret.
func fetchRoot(ctx context.Context, cfg Config) (*x509.Certificate, error) {
	asked := "asked for the root certificate with the fingerprint " + cfg.Fingerprint
	anybody := newClient(cfg, &tls.Config{InsecureSkipVerify: true})
	defer anybody.http.CloseIdleConnections()
	body, err := anybody.get(ctx, "root/"+cfg.Fingerprint, asked)
	if r, ok := asRefusal(err); ok && r.status == http.StatusNotFound {
		return nil, problem.New("the CA at %s has no root certificate with the fingerprint %s: %w", cfg.URL, cfg.Fingerprint, r).Hint(fingerprintHint)
	}
	if err != nil {
		return nil, err
	}
	var answer api.RootResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, explain(cfg.URL, asked, err)
	}
	root := answer.RootPEM.Certificate
	if root == nil || x509util.Fingerprint(root) != cfg.Fingerprint {
		return nil, problem.New("the CA at %s was %s and answered with another one", cfg.URL, asked).Hint(fingerprintHint)
	}
	return root, nil
}

// Audience is the audience that tokens for revoking at this CA have. step-ca
// does not compare its port (authority/config, Config.GetAudiences).
func (c *CA) Audience() string { return c.url.JoinPath("1.0", "revoke").String() }

// Provisioners returns all of the CA's provisioners, which it lists in pages.
func (c *CA) Provisioners(ctx context.Context) (provisioner.List, error) {
	var all provisioner.List
	cursor := ""
	for {
		var page *api.ProvisionersResponse
		if err := c.ask(ctx, "asked for its provisioners", func(ctx context.Context) (err error) {
			page, err = c.api.ProvisionersWithContext(ctx, ca.WithProvisionerCursor(cursor), ca.WithProvisionerLimit(100))
			return err
		}); err != nil {
			return nil, err
		}
		all = append(all, page.Provisioners...)
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// Issuers returns the certificates that this CA issues with: its intermediates
// and the roots.
func (c *CA) Issuers(ctx context.Context) ([]*x509.Certificate, error) {
	issuers, _, err := c.issuers(ctx)
	return issuers, err
}

// issuers also returns the refusal of a CA that does not list its intermediates,
// or nil. An older step-ca does not know the question (404); a registration
// authority has none (501). Either shows those of its issuer in the chain of its
// own certificate.
func (c *CA) issuers(ctx context.Context) (issuers []*x509.Certificate, refused *refusal, err error) {
	const asked = "asked for its intermediate certificates"
	body, err := c.get(ctx, "intermediates", asked)
	refused, _ = asRefusal(err)
	if err != nil && refused == nil {
		return nil, nil, err
	}
	// Of the trusted roots, only those count that this CA has shown to be its
	// own: a file may also hold those of other CAs.
	for _, chain := range *c.chains.Load() {
		if issuers = append(issuers, chain[len(chain)-1]); refused != nil {
			issuers = append(issuers, chain[1:]...)
		}
	}
	if refused != nil {
		return issuers, refused, nil
	}
	var list api.IntermediatesResponse
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, nil, explain(c.url, asked, err)
	}
	for _, intermediate := range list.Certificates {
		issuers = append(issuers, intermediate.Certificate)
	}
	return issuers, nil, nil
}

// Evidence returns the CA's CRL, which one of its issuers must have signed and
// which must not be out of date.
func (c *CA) Evidence(ctx context.Context) (revocation.Evidence, error) {
	issuers, unlisted, err := c.issuers(ctx)
	if err != nil {
		return nil, err
	}
	der, err := c.get(ctx, "crl", "asked for its CRL")
	switch r, refused := asRefusal(err); {
	case refused && unlisted != nil && unlisted.status == http.StatusNotImplemented:
		return nil, problem.New("a registration authority has no CRL: %w", r).
			Hint("its CA makes the CRL: --dry-run --verify shows it, with the --ca-url of the CA itself")
	case refused && r.status == http.StatusNotFound:
		return nil, problem.New("the CA has no CRL: %w", r).Hint(revocation.NoCRLHint)
	case err != nil:
		return nil, err
	}
	crl, err := revocation.ReadCRL(der, issuers)
	if err != nil {
		return nil, err // and no *CRL that is nil
	}
	return crl, nil
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
	c.http.CloseIdleConnections()
	c.api.CloseIdleConnections()
	return nil
}

// Revoke sends one revocation. Its request has an ID of our own, so that an
// answer that is lost can be found in the CA's log.
func (c *CA) Revoke(ctx context.Context, req revocation.Request) revocation.Answer {
	id, err := randutil.UUIDv4()
	if err != nil {
		return revocation.Answer{Status: revocation.Failed, Err: fmt.Errorf("making a request ID: %w", err)}
	}
	timed, cancel := context.WithTimeout(requestid.NewRequestIDContext(ctx, id), c.timeout)
	defer cancel()
	resp, err := c.api.RevokeWithContext(timed, &api.RevokeRequest{
		Serial: req.Serial.String(), OTT: req.Token, Reason: req.Reason.Text, ReasonCode: req.Reason.Code, Passive: true,
	}, nil)
	var answer revocation.Answer
	switch r, refused := asRefusal(err); {
	case refused:
		answer = r.answer()
	case has[*unsentError](err):
		return c.unsent(ctx, err)
	case err != nil:
		answer = c.unanswered(err)
	case resp.Status != "ok":
		answer = unknown(fmt.Errorf("the answer of the CA is no confirmation (its status is %.64q)", resp.Status))
	default:
		answer.Status = revocation.Revoked
	}
	answer.RequestID = id
	return answer
}

// unsent says what the error means of a revocation of which nothing was sent.
func (c *CA) unsent(ctx context.Context, err error) revocation.Answer {
	failed := revocation.Answer{Status: revocation.Failed, Err: explain(c.url, "asked to revoke", err)}
	switch {
	case has[*tls.CertificateVerificationError](err) || isAlert(err):
		return failed
	case ctx.Err() != nil:
		return revocation.Answer{Status: revocation.NotAttempted, Err: problem.ErrInterrupted, Next: revocation.Reach}
	case c.chains.Load() == nil: // never reached, so perhaps not there at all
		return failed
	}
	return revocation.Answer{Status: revocation.NotAttempted, Err: failed.Err, Next: revocation.Reach}
}

// unanswered says what the error means of a revocation that was sent. From then
// on an error may hide a success.
func (c *CA) unanswered(err error) revocation.Answer {
	switch {
	case has[*redirectError](err), has[*tls.CertificateVerificationError](err), isAlert(err) && c.presentsCertificate:
		return revocation.Answer{Status: revocation.Failed, Err: explain(c.url, "asked to revoke", err)}
	case isTimeout(err):
		return unknown(fmt.Errorf("no answer within %s", c.timeout))
	case errors.Is(err, context.Canceled):
		return unknown(errors.New("interrupted before the answer"))
	}
	return unknown(fmt.Errorf("the connection ended before the answer: %w", cause(err)))
}

// unknown is the answer to a revocation that may have happened all the same.
func unknown(err error) revocation.Answer {
	return revocation.Answer{Status: revocation.Unknown, Err: err, Next: revocation.Again}
}
