package online

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/smallstep/certificates/ca"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

const (
	connectTimeout = 4 * time.Second // for a connection with TLS: an unreachable CA is reported within 5 seconds
	maxWait        = 5 * time.Second // between two attempts, unless the CA asks for more
	maxAnswer      = 128 << 20       // bytes that are read of one answer: a CRL with millions of entries
	maxRefusal     = 64 << 10        // bytes that are read of one refusal
)

// A client asks a CA questions that need no authorization.
type client struct {
	http     *http.Client
	url      *url.URL
	timeout  time.Duration // for one request
	retryFor time.Duration // how long to ask again
	// chains are those of the CA's own certificate, up to trusted roots. They
	// are nil until a trusted CA has been reached.
	chains atomic.Pointer[[][]*x509.Certificate]
}

// newClient prepares a client; it stores the verified chains of each connection
// that is made with the TLS configuration.
func newClient(cfg Config, config *tls.Config) *client {
	c := &client{url: cfg.URL, timeout: cfg.Timeout, retryFor: cfg.RetryFor}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.VerifiedChains) > 0 {
			c.chains.Store(&state.VerifiedChains)
		}
		return nil
	}
	c.http = &http.Client{Transport: newGuard(config, cfg.Concurrency)}
	return c
}

// get fetches a document of the CA's API. ca.Client has no methods for some of
// them, and ignores the context in others.
func (c *client) get(ctx context.Context, path, asked string) (body []byte, err error) {
	req, err := http.NewRequest(http.MethodGet, c.url.JoinPath("1.0", path).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", ca.UserAgent)
	req.Header.Set("Cache-Control", "no-cache")
	err = c.ask(ctx, asked, func(ctx context.Context) error {
		resp, err := c.http.Do(req.WithContext(ctx))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return err
	})
	return body, err
}

// ask asks a question, and again for as long as retryFor while the failure may
// be transient: with exponential backoff and jitter, or after the time that the
// CA asks for. asked says in an error what the CA was asked, as in "asked for
// its CRL".
func (c *client) ask(ctx context.Context, asked string, question func(context.Context) error) error {
	waits, start := backoff.NewExponentialBackOff(), time.Now()
	waits.MaxInterval = maxWait
	for {
		err := c.askOnce(ctx, question)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return problem.ErrInterrupted
		}
		wait := waits.NextBackOff()
		if r, ok := asRefusal(err); ok {
			wait = cmp.Or(r.retryAfter, wait)
		}
		explained := explain(c.url, asked, err)
		if !c.mayPass(err) || time.Since(start)+wait > c.retryFor {
			return explained
		}
		ui.Warn("%v; trying again in %s", explained, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return problem.ErrInterrupted
		}
	}
}

func (c *client) askOnce(ctx context.Context, question func(context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return question(timed)
}

// mayPass tells whether the same question may succeed a moment later. A CA that
// was never reached may not exist at all, and is not waited for.
func (c *client) mayPass(err error) bool {
	if r, ok := asRefusal(err); ok {
		return r.isTransient()
	}
	return c.chains.Load() != nil && !isAlert(err) &&
		!errors.As(err, new(*redirectError)) && !errors.As(err, new(*json.SyntaxError))
}

// A guard is a transport that does not wait long for a connection, follows no
// redirect, bounds what is read of an answer, and returns a refusal as an
// error.
type guard struct{ base *http.Transport }

var errNoConnection = fmt.Errorf("no connection within %s", connectTimeout)

// newGuard returns a guard for this many requests at the same time. With HTTP/2
// they share one connection; more connections are no faster (make bench).
func newGuard(config *tls.Config, concurrency int) guard {
	return guard{base: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: concurrency, // of HTTP/1.1
	}}
}

// CloseIdleConnections is what http.Client looks for in its transport.
func (g guard) CloseIdleConnections() { g.base.CloseIdleConnections() }

// RoundTrip sends a request. It returns an error for every answer with a status
// from 300 on, which breaks the contract of http.RoundTripper, because ca.Client
// otherwise loses the status of an answer that is not JSON. Its error is an
// unsentError if nothing was sent.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	ctx, giveUp := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(connectTimeout, func() { giveUp(errNoConnection) })
	defer timer.Stop()
	var sent atomic.Bool
	resp, err := g.base.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { timer.Stop() },
		WroteHeaders: func() { sent.Store(true) },
	})))
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		ui.Debug("%s %s after %s: %v", req.Method, req.URL, took, err)
		if !sent.Load() {
			err = &unsentError{error: err}
		}
		return nil, err
	}
	ui.Debug("%s %s after %s: %s, request ID %s", req.Method, req.URL, took, resp.Status, resp.Header.Get("X-Request-Id"))
	if resp.StatusCode < http.StatusMultipleChoices {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusBadRequest {
		return nil, &redirectError{status: resp.StatusCode, location: resp.Header.Get("Location")}
	}
	return nil, readRefusal(resp)
}

// An unsentError is the error of a request of which nothing was sent.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// A redirectError is a redirect, which is never followed: the token would go
// along with it.
type redirectError struct {
	status   int
	location string
}

func (r *redirectError) Error() string {
	return fmt.Sprintf("a redirect to %.200q (HTTP %d)", r.location, r.status)
}
