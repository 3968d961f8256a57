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
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/smallstep/certificates/errs"
)

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

// newGuard makes one for so many requests at the same time. With HTTP/2 they
// share one connection; more of them are no faster (make bench measures it).
func newGuard(config *tls.Config, concurrency int) guard {
	return guard{&http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: concurrency, // of HTTP/1.1
		// Each request has an ID of its own, for which the table of headers would be
		// changed each time, here and there: that costs more than it saves.
		HTTP2: &http.HTTP2Config{MaxEncoderHeaderTableSize: 1},
	}}
}

func (g guard) CloseIdleConnections() { g.base.CloseIdleConnections() }

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	ctx, giveUp := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(connectTimeout, func() { giveUp(errNoConnection) })
	defer timer.Stop()
	var sent atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { timer.Stop() },
		WroteHeaders: func() { sent.Store(true) },
	}))
	resp, err := g.base.RoundTrip(req)
	if err != nil && !sent.Load() {
		err = &unsentError{err}
	}
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
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil { // half of a refusal may be that of an "already revoked"
		return nil, err
	}
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

// An unsentError is that of a request of which nothing was sent.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// A redirectError is a redirect, which is never followed.
type redirectError struct {
	status   int
	location string
}

func (r *redirectError) Error() string {
	return fmt.Sprintf("a redirect to %q (HTTP %d)", clip(r.location, 200), r.status)
}
