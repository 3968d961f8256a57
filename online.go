package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/ca"
	"go.step.sm/crypto/x509util"
)

const (
	connectTimeout = 4 * time.Second // for a connection with TLS: who finds none shall know within 5 seconds
	maxAnswer      = 128 << 20       // bytes that are read of one answer: a CRL with millions of entries
)

// online is a CA that is reached over HTTPS, on one connection for the run and,
// with a client certificate, one more.
type online struct {
	url     *url.URL
	client  *ca.Client
	http    *http.Client                           // for what client cannot do, on the same connection unless that shows a certificate
	timeout time.Duration                          // for one request
	retry   time.Duration                          // how long to ask again
	chains  *atomic.Pointer[[][]*x509.Certificate] // of the CA's own certificate
	shown   bool                                   // a client certificate, which the CA may refuse late
}

// newOnline prepares the connection to a CA. Only to fetch a root certificate
// by its fingerprint does it contact the CA.
func newOnline(ctx context.Context, o *options, clientCert *tls.Certificate) (*online, error) {
	saySelected("CA", o.caURL.String())
	roots := o.roots
	if roots == nil {
		root, err := fetchRoot(ctx, o)
		if err != nil {
			return nil, err
		}
		roots = []*x509.Certificate{root}
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	var chains atomic.Pointer[[][]*x509.Certificate]
	config := &tls.Config{
		RootCAs:    pool,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		VerifyConnection: func(state tls.ConnectionState) error {
			chains.Store(&state.VerifiedChains)
			return nil
		},
	}
	questions := &http.Client{Transport: newGuard(config, o.concurrency)}
	// Questions need no certificate, and come before it is shown: a CA that
	// does not take it just hangs up, often before it has said why.
	transport := questions.Transport
	if clientCert != nil {
		config := config.Clone()
		// Whatever issuers the CA names as acceptable: it shall say what it
		// thinks of this certificate, not that there is none.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return clientCert, nil }
		transport = newGuard(config, o.concurrency)
	}
	client, err := ca.NewClient(o.caURL.String(), ca.WithTransport(transport), ca.WithTimeout(0))
	if err != nil {
		return nil, usagef("preparing the connection to %s: %w", o.caURL, err)
	}
	return &online{o.caURL, client, questions, o.timeout, o.retryFor, &chains, clientCert != nil}, nil
}

// fetchRoot fetches the root certificate that has the fingerprint in the
// options, from whoever answers. Nothing secret is sent.
func fetchRoot(ctx context.Context, o *options) (*x509.Certificate, error) {
	asked := "asked for the root certificate with the fingerprint " + o.fingerprint
	anybody := &online{url: o.caURL, timeout: o.timeout, retry: o.retryFor, chains: new(atomic.Pointer[[][]*x509.Certificate]), http: &http.Client{
		Transport: newGuard(&tls.Config{InsecureSkipVerify: true}, 1),
	}}
	defer anybody.http.CloseIdleConnections()
	body, err := anybody.get(ctx, "root/"+o.fingerprint, asked)
	if a, ok := asAnswer(err); ok && a.status == http.StatusNotFound {
		return nil, failf("the CA at %s has no root certificate with the fingerprint %s: %w", o.caURL, o.fingerprint, a).hint(fingerprintHint)
	}
	if err != nil {
		return nil, err
	}
	var root api.RootResponse
	if err := json.Unmarshal(body, &root); err != nil {
		return nil, unreachable(o.caURL, asked, err)
	}
	if root.RootPEM.Certificate == nil || x509util.Fingerprint(root.RootPEM.Certificate) != o.fingerprint {
		return nil, failf("the CA at %s was %s and answered with another one", o.caURL, asked).hint(fingerprintHint)
	}
	return root.RootPEM.Certificate, nil
}

// Audience is the audience of tokens for this CA. The port does not count.
func (o *online) Audience() string { return o.url.JoinPath("1.0", "revoke").String() }

// Provisioners lists the CA's provisioners, page by page.
func (o *online) Provisioners(ctx context.Context) (provisioner.List, error) {
	var all provisioner.List
	cursor := ""
	for {
		var page *api.ProvisionersResponse
		if err := o.ask(ctx, "asked for its provisioners", func(ctx context.Context) (err error) {
			page, err = o.client.ProvisionersWithContext(ctx, ca.WithProvisionerCursor(cursor), ca.WithProvisionerLimit(100))
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

// get fetches what ca.Client has no method for, or has one that loses the
// context.
func (o *online) get(ctx context.Context, path, asked string) (body []byte, err error) {
	req, err := http.NewRequest(http.MethodGet, o.url.JoinPath("1.0", path).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", ca.UserAgent)
	req.Header.Set("Cache-Control", "no-cache")
	err = o.ask(ctx, asked, func(ctx context.Context) error {
		resp, err := o.http.Do(req.WithContext(ctx))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return err
	})
	return body, err
}

// ask asks a question, and again where the failure may pass: but a CA that was
// never reached is not waited for.
func (o *online) ask(ctx context.Context, asked string, question func(context.Context) error) (err error) {
	attempt := func() error {
		timed, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		err = question(timed)
		a, refused := asAnswer(err)
		switch {
		case refused && !a.passing(), !refused && o.chains.Load() == nil, isAlert(err),
			errors.As(err, new(*redirectError)), errors.As(err, new(*json.SyntaxError)):
			return nil
		}
		return err
	}
	retry(ctx, o.retry, attempt, func(wait time.Duration) {
		sayMarked(warn, "%v; trying again in %s", unreachable(o.url, asked, err), wait)
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errInterrupted
	}
	return unreachable(o.url, asked, err)
}

// Issuers are the certificates that this CA issues with: its intermediates and
// the roots. A CA that does not list its intermediates (an older step-ca, or a
// registration authority) shows them in the chain of its own certificate.
func (o *online) Issuers(ctx context.Context) ([]*x509.Certificate, error) {
	const asked = "asked for its intermediate certificates"
	body, err := o.get(ctx, "intermediates", asked)
	_, refused := asAnswer(err)
	if err != nil && !refused {
		return nil, err
	}
	// Of the roots that are trusted only those count that this CA has shown to
	// be its own: a file may hold those of other CAs besides.
	var issuers []*x509.Certificate
	for _, chain := range *o.chains.Load() {
		if issuers = append(issuers, chain[len(chain)-1]); refused {
			issuers = append(issuers, chain[1:]...)
		}
	}
	if refused {
		return issuers, nil
	}
	var list api.IntermediatesResponse
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, unreachable(o.url, asked, err)
	}
	for _, c := range list.Certificates {
		issuers = append(issuers, c.Certificate)
	}
	return issuers, nil
}

// Evidence is the CA's CRL, signed by one of its issuers and not out of date.
func (o *online) Evidence(ctx context.Context) (evidence, error) {
	issuers, err := o.Issuers(ctx)
	if err != nil {
		return nil, err
	}
	der, err := o.get(ctx, "crl", "asked for its CRL")
	if a, ok := asAnswer(err); ok && a.status == http.StatusNotFound {
		return nil, failf("the CA has no CRL: %w", a).hint(noCRLHint)
	}
	if err != nil {
		return nil, err
	}
	return readCRL(der, issuers)
}

// Open has nothing to open: a CA that is online does not tell which serial
// numbers it knows.
func (o *online) Open(context.Context, []target) error { return nil }

// Touched is always true: whatever fails with this CA has contacted it.
func (o *online) Touched() bool { return true }

// Close lets go of the connection.
func (o *online) Close(context.Context) error {
	o.http.CloseIdleConnections()
	o.client.CloseIdleConnections()
	return nil
}

// Revoke sends one revocation. The CA has confirmed it only if the error is nil.
func (o *online) Revoke(ctx context.Context, req *api.RevokeRequest) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	resp, err := o.client.RevokeWithContext(ctx, req, nil)
	switch {
	case err == nil && resp.Status == "ok":
		return nil
	case err == nil:
		return noAnswer{fmt.Errorf("the answer of the CA is no confirmation (its status is %q)", clip(resp.Status, 64))}
	}
	if answer, ok := asAnswer(err); ok {
		return answer.explain()
	}
	var (
		redirect  *redirectError
		untrusted *tls.CertificateVerificationError
		sent      = !errors.As(err, new(*unsentError)) // from where on an error may hide a success
	)
	switch {
	case errors.As(err, &redirect) || errors.As(err, &untrusted) || isAlert(err) && (!sent || o.shown):
		return unreachable(o.url, "asked to revoke", err)
	case sent && errors.Is(err, context.DeadlineExceeded):
		return noAnswer{fmt.Errorf("no answer within %s", o.timeout)}
	case sent && errors.Is(err, context.Canceled):
		return noAnswer{errors.New("interrupted before the answer")}
	case sent:
		return noAnswer{fmt.Errorf("the connection ended before the answer: %w", cause(err))}
	case o.chains.Load() == nil: // never reached, so perhaps not there at all
		return unreachable(o.url, "asked to revoke", err)
	}
	return notSent{unreachable(o.url, "asked to revoke", err)}
}
