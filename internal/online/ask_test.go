package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// TestAsk shows which failures of a question are transient, and that it is
// repeated no longer than allowed.
func TestAsk(t *testing.T) {
	t.Parallel()
	busy := &refusal{status: 503, text: "busy"}
	cut := errors.New("connection reset")
	refusedConnection := &unsentError{error: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}
	alert := func(code uint8) error { return &net.OpError{Op: "remote error", Err: tls.AlertError(code)} }
	for _, tt := range []struct {
		name     string
		err      error
		reached  bool
		attempts int // of which the last one succeeds, if there are 3
		text     string
	}{
		{"busy", busy, false, 3, ""},
		{"slow", &refusal{status: 429, retryAfter: 20 * time.Second}, false, 3, ""},
		{"too slow", &refusal{status: 429, text: "later", retryAfter: time.Hour}, false, 1, "answered: later (HTTP 429, to be tried again after 1h0m0s)"},
		{"refused", &refusal{status: 404, text: "no"}, true, 1, "answered: no (HTTP 404)"},
		{"cut off", cut, true, 3, ""},
		{"never there", cut, false, 1, "cannot be reached: connection reset"},
		{"not there yet", refusedConnection, false, 3, ""},
		{"alert", alert(80), true, 3, ""},
		{"alert, to nothing", &unsentError{error: alert(80)}, true, 1, "refused the connection: remote error: tls: internal error"},
		{"alert about a certificate", alert(116), true, 1, "refused the connection: remote error: tls: certificate required"},
		{"nonsense", badAnswer("it is odd"), true, 1, "was asked, and its answer cannot be used: it is odd"},
		{"redirect", &redirectError{status: 302, location: "/x"}, true, 1, `answered with a redirect to "/x" (HTTP 302)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				c := &client{way: way{url: &url.URL{Scheme: "https", Host: "ca.test"}}, timeout: time.Minute, retryFor: time.Minute}
				ctx, cancel := c.patience(t.Context())
				defer cancel()
				if tt.reached {
					c.chains.Store(new([][]*x509.Certificate))
				}
				err := c.ask(ctx, "asked", func(context.Context) error {
					if attempts++; attempts == 3 {
						return nil
					}
					return tt.err
				})
				if attempts != tt.attempts || (err == nil) != (attempts == 3) || err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%d attempts, error %v; want %d, %q", attempts, err, tt.attempts, tt.text)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		c := &client{way: way{url: new(url.URL)}, timeout: time.Minute, retryFor: time.Hour}
		ctx, cancelPatience := c.patience(ctx)
		defer cancelPatience()
		if err := c.ask(ctx, "asked", func(context.Context) error { return busy }); !errors.Is(err, problem.ErrInterrupted) {
			t.Errorf("a signal while waiting: %v", err)
		}
	})
}

// TestPatience shows when a question ends that is never answered: its last
// attempt begins when retryFor is over, and takes no longer than any other.
func TestPatience(t *testing.T) {
	t.Parallel()
	for _, retryFor := range []time.Duration{0, time.Millisecond, 6 * time.Second, time.Minute} {
		for name, answer := range map[string]func(context.Context) error{
			"busy":   func(context.Context) error { return &refusal{status: 503, text: "busy"} },
			"silent": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		} {
			synctest.Test(t, func(t *testing.T) {
				c := &client{way: way{url: new(url.URL)}, timeout: 4 * time.Second, retryFor: retryFor}
				c.chains.Store(new([][]*x509.Certificate))
				ctx, cancel := c.patience(t.Context())
				defer cancel()
				start := time.Now()
				var last time.Duration
				err := c.ask(ctx, "asked", func(ctx context.Context) error {
					last = time.Since(start)
					return answer(ctx)
				})
				atLimit := last == retryFor || name == "silent" && last > retryFor-c.timeout
				if took := time.Since(start); err == nil || last > retryFor || !atLimit || took > retryFor+c.timeout {
					t.Errorf("%s for %s: the last attempt began after %s, and %v came after %s", name, retryFor, last, err, took)
				}
			})
		}
	}
}

// TestTogether shows that all questions have the time of one, and that a first
// contact which is refused is tried again for 4 seconds of it.
func TestTogether(t *testing.T) {
	t.Parallel()
	refused := &unsentError{error: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}
	for _, tt := range []struct {
		retryFor time.Duration
		reached  bool
		err      error
		want     time.Duration // from the first question to the last attempt of the third
	}{
		{6 * time.Second, true, &refusal{status: 503, text: "busy"}, 6 * time.Second},
		{6 * time.Second, false, refused, 6 * time.Second},
		{time.Minute, false, refused, 12 * time.Second},
		{2 * time.Second, false, refused, 2 * time.Second},
		{0, false, refused, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &client{way: way{url: new(url.URL)}, timeout: time.Second, retryFor: tt.retryFor}
			if tt.reached {
				c.chains.Store(new([][]*x509.Certificate))
			}
			start := time.Now()
			for range 3 {
				ctx, cancel := c.patience(t.Context())
				if err := c.ask(ctx, "asked", func(context.Context) error { return tt.err }); err == nil {
					t.Error("no error")
				}
				cancel()
			}
			if took := time.Since(start); took != tt.want {
				t.Errorf("%+v: %s", tt, took)
			}
		})
	}
}

// TestRetryAfter shows how long an answer asks to wait, in whatever words.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "0": 0, "-5": 0, "-9223372036854775808": 0, "7": 7 * time.Second,
		"9223372036854775807": 24 * time.Hour, "99999999999999999999": 0,
		in(-time.Hour): 0, in(time.Hour): time.Hour, "Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour,
	} {
		got := retryAfter(http.Header{"Retry-After": {value}})
		if d := want - got; d < 0 || d > 10*time.Second {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	a := connect(t, configOf(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(503)
	})))).Revoke(t.Context(), revocation.Request{})
	if a.After != 7*time.Second || a.StaleCRL || a.Cause != "Service Unavailable (HTTP 503)" {
		t.Errorf("answer %+v", a)
	}
}
