package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/ca"
	"github.com/smallstep/certificates/errs"
	"go.step.sm/crypto/x509util"
)

const (
	connectTimeout = 4 * time.Second // for a connection with TLS: who finds none shall know within 5 seconds
	maxAnswer      = 128 << 20       // bytes that are read of one answer: a CRL with millions of entries
)

// online is a CA that is reached over HTTPS, on one connection for the run and,
// with a client certificate, one more.
type online struct {
	url    *url.URL
	client *ca.Client
	http   *http.Client  // for what client cannot do, on the same connection unless that shows a certificate
	retry  time.Duration // how long to ask again
	roots  []*x509.Certificate
	chains *atomic.Pointer[[][]*x509.Certificate] // of the CA's own certificate
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
	questions := &http.Client{Transport: newGuard(config), Timeout: o.timeout}
	// Questions need no certificate, and come before it is shown: a CA that
	// does not take it just hangs up, often before it has said why.
	transport := questions.Transport
	if clientCert != nil {
		config := config.Clone()
		// Whatever issuers the CA names as acceptable: it shall say what it
		// thinks of this certificate, not that there is none.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return clientCert, nil }
		transport = newGuard(config)
	}
	client, err := ca.NewClient(o.caURL.String(), ca.WithTransport(transport), ca.WithTimeout(o.timeout))
	if err != nil {
		return nil, usagef("preparing the connection to %s: %w", o.caURL, err)
	}
	return &online{o.caURL, client, questions, o.retryFor, roots, &chains}, nil
}

// fetchRoot fetches the root certificate that has the fingerprint in the
// options, from whoever answers. Nothing secret is sent.
func fetchRoot(ctx context.Context, o *options) (*x509.Certificate, error) {
	asked := "asked for the root certificate with the fingerprint " + o.fingerprint
	anybody := &online{url: o.caURL, retry: o.retryFor, chains: new(atomic.Pointer[[][]*x509.Certificate]), http: &http.Client{
		Transport: newGuard(&tls.Config{InsecureSkipVerify: true}), Timeout: o.timeout,
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
		if err := o.ask(ctx, "asked for its provisioners", func() (err error) {
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url.JoinPath("1.0", path).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", ca.UserAgent)
	req.Header.Set("Cache-Control", "no-cache")
	err = o.ask(ctx, asked, func() error {
		resp, err := o.http.Do(req)
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
func (o *online) ask(ctx context.Context, asked string, question func() error) (err error) {
	attempt := func() error {
		err = question()
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
	issuers := slices.Clone(o.roots)
	body, err := o.get(ctx, "intermediates", asked)
	if _, answered := asAnswer(err); answered {
		for _, chain := range *o.chains.Load() {
			issuers = append(issuers, chain[1:]...)
		}
		return issuers, nil
	}
	if err != nil {
		return nil, err
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
func (o *online) Open(context.Context, []*target) error { return nil }

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
	// From here on an error may hide a success.
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
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
	)
	switch {
	case errors.As(err, &redirect) || errors.As(err, &untrusted) || isAlert(err):
		return unreachable(o.url, "asked to revoke", err)
	case sent.Load() && errors.Is(err, context.DeadlineExceeded):
		return noAnswer{fmt.Errorf("no answer within %s", o.http.Timeout)}
	case sent.Load() && errors.Is(err, context.Canceled):
		return noAnswer{errors.New("interrupted before the answer")}
	case sent.Load():
		return noAnswer{fmt.Errorf("the connection ended before the answer: %w", cause(err))}
	case o.chains.Load() == nil: // never reached, so perhaps not there at all
		return unreachable(o.url, "asked to revoke", err)
	}
	return notSent{unreachable(o.url, "asked to revoke", err)}
}

// An answer is a refusal of the CA, or of something in front of it.
type answer struct {
	status     int
	text       string
	requestID  string
	retryAfter time.Duration // what Retry-After says, or 0
}

func (a *answer) Error() string {
	s := strings.TrimSuffix(a.text, ".") + fmt.Sprintf(" (HTTP %d", a.status)
	if a.requestID != "" {
		s += ", request ID " + a.requestID
	}
	if a.retryAfter > 0 {
		s += fmt.Sprintf(", to be tried again after %s", a.retryAfter.Round(time.Second))
	}
	return s + ")"
}

// asAnswer finds the answer of a CA in an error.
func asAnswer(err error) (a *answer, ok bool) {
	ok = errors.As(err, &a)
	return a, ok
}

// passing tells whether the answer may be another one a moment later.
func (a *answer) passing() bool {
	return a.status == http.StatusTooManyRequests || a.status >= 500 && a.status != http.StatusNotImplemented
}

// explain turns a refusal into what it means, where that is known. The texts
// and codes are those of step-ca's authority/tls.go, Authority.Revoke.
func (a *answer) explain() error {
	switch {
	case a.status == http.StatusBadRequest && strings.Contains(a.text, "is already revoked"):
		return errAlreadyRevoked
	case a.status == http.StatusBadRequest && strings.Contains(a.text, "client certificate"):
		return (&problem{error: a, code: exitFailed}).
			hint("the CA did not see the certificate: something between here and the CA may end TLS; revoke with a provisioner instead, without --key")
	case a.status == http.StatusUnauthorized:
		return (&problem{error: a, code: exitFailed}).
			hint("the clock here or on the CA may be off").
			hint("the host in --ca-url may not be one of the CA's dnsNames").
			hint("the CA may have restarted after the token was made").
			hint("the token may have been used before: each works once")
	case a.status == http.StatusNotImplemented:
		return (&problem{error: a, code: exitFailed}).
			hint("this CA has no database and cannot revoke: see \"db\" in its ca.json")
	case a.status >= http.StatusInternalServerError:
		return noAnswer{(&problem{error: a, code: exitFailed}).
			hint("a CA that builds a CRL with each revocation may have stored this one before it failed")}
	}
	return a
}

const fingerprintHint = "check it, and --ca-url: 'step certificate fingerprint root_ca.crt' prints the right one on the CA's host"

// unreachable explains why a CA could not be reached, or did not do what it was
// asked.
func unreachable(u *url.URL, asked string, err error) *problem {
	if errors.Is(err, context.Canceled) {
		return errInterrupted
	}
	if a, ok := asAnswer(err); ok {
		return failf("the CA at %s was %s and answered: %w", u, asked, a).hint("is this the address of a step-ca?")
	}
	var redirect *redirectError
	if errors.As(err, &redirect) {
		return failf("the CA at %s was %s and answered with %w", u, asked, redirect).
			hint("redirects are not followed, so that a token goes nowhere else: use the CA's own address")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return failf("the CA at %s was %s and did not answer in time", u, asked).hint("--timeout gives it more")
	}
	var (
		p        = failf("the CA at %s cannot be reached: %w", u, cause(err))
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		dns      *net.DNSError
		syntax   *json.SyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		return p.hint("its certificate does not come from the root that is trusted: check --root, --fingerprint and --ca-url")
	case errors.As(err, &hostname):
		return p.hint("use a name that is in the CA's certificate (dnsNames in its ca.json)")
	case errors.As(err, &invalid):
		return p.hint("check the clock here and on the CA")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return p.hint("what listens there does not speak TLS")
	case isAlert(err):
		return failf("the CA at %s refused the connection: %w", u, cause(err)).
			hint("if that is about the certificate in --cert: it has to be one that this CA has issued")
	case errors.As(err, &syntax):
		return failf("the CA at %s was %s and answered what is not JSON: %w", u, asked, syntax).hint("is this the address of a step-ca?")
	case errors.As(err, &dns):
		return p.hint("check the host name in --ca-url")
	}
	return p.hint("check that the CA is running and that --ca-url is right")
}

// isAlert tells whether the other side has ended TLS with an alert: with TLS 1.3
// that is how a client certificate is refused, after the request was sent.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// cause strips an error of what its wrappers say about the request.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	for inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "client "); inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

// A guard is a transport that does not wait long for a connection, follows no
// redirect, reads a bounded answer, and makes an error of every refusal, with
// its status and whatever text it has.
type guard struct{ base *http.Transport }

var errNoConnection = fmt.Errorf("no connection within %s", connectTimeout)

func newGuard(config *tls.Config) guard {
	return guard{&http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
	}}
}

func (g guard) CloseIdleConnections() { g.base.CloseIdleConnections() }

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	ctx, giveUp := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(connectTimeout, func() { giveUp(errNoConnection) })
	defer timer.Stop()
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { timer.Stop() },
	}))
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		sayDebug("%s %s after %s: %v", req.Method, req.URL, time.Since(start).Round(time.Millisecond), err)
		return nil, err
	}
	sayDebug("%s %s after %s: %s, request ID %s", req.Method, req.URL, time.Since(start).Round(time.Millisecond), resp.Status, resp.Header.Get("X-Request-Id"))
	if location := resp.Header.Get("Location"); resp.StatusCode/100 == 3 {
		resp.Body.Close()
		return nil, &redirectError{resp.StatusCode, location}
	}
	if resp.StatusCode < http.StatusBadRequest {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
		return resp, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what is missing of an error does not change it
	a := &answer{resp.StatusCode, http.StatusText(resp.StatusCode), resp.Header.Get("X-Request-Id"), retryAfter(resp.Header)}
	var parsed errs.ErrorResponse
	if json.Unmarshal(body, &parsed) == nil && parsed.Message != "" {
		a.text = parsed.Message
	} else if text := strings.Join(strings.Fields(clip(string(body), 200)), " "); text != "" {
		a.text = text
	}
	return nil, a
}

// retryAfter reads the header Retry-After: seconds, or a date (RFC 9110,
// section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	const longest = 24 * time.Hour // with which one can calculate, and which nobody waits for
	value := h.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(longest/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = time.Until(date)
	}
	return min(max(wait, 0), longest)
}

// A redirectError is a redirect, which is never followed.
type redirectError struct {
	status   int
	location string
}

func (r *redirectError) Error() string {
	return fmt.Sprintf("a redirect to %q (HTTP %d)", clip(r.location, 200), r.status)
}
