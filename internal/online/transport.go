package online

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

const (
	connectTimeout = 4 * time.Second // for a connection with TLS: an unreachable CA is reported within 5 seconds
	maxSends       = 5               // of one request, before nothing more is tried with it
)

// Bounds of what is read, in bytes as they arrive. The answers to revocations,
// and refusals, are read for all requests in flight at the same time.
const (
	maxHeader       = 64 << 10
	maxRefusal      = 64 << 10
	maxConfirmation = 64 << 10
	maxCertificates = 1 << 20 // a root, or intermediates
	maxProvisioners = 16 << 20
	maxCRL          = 64 << 20 // 1.3 million entries of step-ca
	maxLook         = 16 << 20 // of a CRL, beside revocations
	maxUnread       = 1 << 20  // that wait on a connection of HTTP/2
)

// A way leads to the CA, and bounds everything that comes back.
type way struct {
	url       *url.URL
	userAgent string
	transport *http.Transport
	last      *atomic.Pointer[string] // secret that was sent: a later answer may still repeat it
}

// newWay returns a way for many requests at the same time. With HTTP/2 they
// share one connection; more connections are no faster (make bench).
func newWay(cfg Config, config *tls.Config) way {
	return way{url: cfg.URL, userAgent: cfg.UserAgent, last: new(atomic.Pointer[string]), transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // with it a few kilobytes become gigabytes
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    cfg.Concurrency, // of HTTP/1.1
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: maxUnread,
			// So the CA keeps no table of the headers of its answers, of which each has
			// a request ID of its own: plugin and CA need 3 % less CPU time together.
			MaxDecoderHeaderTableSize: 1,
		},
	}}
}

// An exchange is a request, and what to make of the answer.
type exchange struct {
	method, path string
	query        url.Values
	body         []byte // in JSON
	requestID    string
	secret       string // in the body; not to be shown where the answer repeats it

	limit, used int64                 // bytes that may be read of the answer; how many of them earlier ones took
	read        func(io.Reader) error // takes the body of an answer with a status of 2xx
}

var (
	errNoConnection = fmt.Errorf("no connection within %s", connectTimeout)
	errTurnedAway   = fmt.Errorf("it was turned away %d times", maxSends)
)

// send makes an exchange within the time of ctx. It does not wait long for a
// connection, and follows no redirect. It also returns how often the request was
// sent: with HTTP/2, net/http repeats what the other side says it has not looked
// at. Its error shows no token, and may be a refusal, a redirectError or a
// badAnswerError; it is an unsentError if nothing was sent.
func (w way) send(ctx context.Context, x exchange) (sent int, err error) {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	s := &sending{giveUp: giveUp, timer: time.AfterFunc(connectTimeout, func() { giveUp(errNoConnection) })}
	defer s.timer.Stop()
	if x.secret != "" {
		w.last.Store(&x.secret)
	} else if last := w.last.Load(); last != nil {
		x.secret = *last
	}
	req, err := w.request(httptrace.WithClientTrace(ctx, s.trace()), x)
	if err != nil {
		return 0, &unsentError{error: err}
	}
	start := time.Now()
	resp, err := w.transport.RoundTrip(req)
	if err == nil {
		err = x.receive(resp)
	}
	if why := context.Cause(ctx); err != nil && (why == errNoConnection || why == errTurnedAway) {
		err = why
	}
	if err = x.clean(err); ui.Debugging() {
		x.debug(req, resp, err, time.Since(start))
	}
	switch sent = int(s.sends.Load()); {
	case resp != nil:
		return max(sent, 1), err
	case sent == 0:
		err = &unsentError{error: err}
	}
	return sent, err
}

// A sending watches over one request.
type sending struct {
	giveUp context.CancelCauseFunc
	timer  *time.Timer // until there is a connection
	conn   net.Conn    // the last one
	sends  atomic.Int32
}

// trace has the request given up when the other side has net/http repeat it too
// often.
func (s *sending) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			if !isHTTP2(s.conn) {
				s.sends.Store(0) // with HTTP/1.1 nothing is repeated that was written
			} else if s.sends.Load() >= maxSends {
				s.giveUp(errTurnedAway)
			}
		},
		GotConn:      func(info httptrace.GotConnInfo) { s.conn = info.Conn; s.timer.Stop() },
		WroteHeaders: func() { s.sends.Add(1) },
	}
}

// isHTTP2 tells whether a connection, which may be nil, carries HTTP/2.
func isHTTP2(conn net.Conn) bool {
	c, ok := conn.(*tls.Conn)
	return ok && c.ConnectionState().NegotiatedProtocol == "h2"
}

func (x exchange) debug(req *http.Request, resp *http.Response, err error, took time.Duration) {
	result := fmt.Sprint(err)
	if resp != nil {
		result = fmt.Sprintf("%s, request ID %s", x.hide(resp.Status), x.hide(resp.Header.Get("X-Request-Id")))
	}
	ui.Debug("%s %s after %s: %s", req.Method, req.URL, took.Round(time.Millisecond), result)
}

func (w way) request(ctx context.Context, x exchange) (*http.Request, error) {
	u := w.url.JoinPath(x.path)
	u.RawQuery = x.query.Encode()
	req, err := http.NewRequestWithContext(ctx, x.method, u.String(), bytes.NewReader(x.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", w.userAgent)
	if x.method == http.MethodGet {
		req.Header.Set("Cache-Control", "no-cache")
	} else {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", x.requestID)
	}
	return req, nil
}

// receive takes an answer.
func (x exchange) receive(resp *http.Response) error {
	defer resp.Body.Close()
	switch status := resp.StatusCode; {
	case status >= http.StatusBadRequest:
		return x.refusal(resp)
	case status >= http.StatusMultipleChoices:
		return &redirectError{status: status, location: x.hide(resp.Header.Get("Location"))}
	case status < http.StatusOK:
		return badAnswer("it has the HTTP status %d", status)
	}
	return x.read(&bounded{Reader: resp.Body, left: x.limit - x.used, limit: x.limit})
}

// A bounded reader fails when more has come than it may read.
type bounded struct {
	io.Reader
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, badAnswer("it has more than %s", inBytes(b.limit))
	}
	return n, err
}

// inBytes writes a bound for a person.
func inBytes(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// An unsentError is the error of a request of which nothing was sent.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// A badAnswerError says what is wrong with an answer that has arrived.
type badAnswerError struct{ error }

func (e *badAnswerError) Unwrap() error { return e.error }

func badAnswer(format string, args ...any) error {
	return &badAnswerError{error: fmt.Errorf(format, args...)}
}

// A redirectError is a redirect, which is never followed: the token would go
// along with it.
type redirectError struct {
	status   int
	location string
}

func (r *redirectError) Error() string {
	return fmt.Sprintf("a redirect to %.200q (HTTP %d)", r.location, r.status)
}
