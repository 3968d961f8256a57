package online

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
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/ca"
	"go.step.sm/crypto/x509util"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// answerWith returns a handler that gives one answer.
func answerWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "req-1")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// serve starts a CA that is only this handler.
func serve(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// configOf returns how to connect to a server.
func configOf(t *testing.T, server *httptest.Server) Config {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return Config{URL: u, Roots: []*x509.Certificate{server.Certificate()}, Timeout: time.Minute, UserAgent: "test"}
}

func connect(t *testing.T, cfg Config) *CA {
	t.Helper()
	c, err := Connect(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TestRevoke shows what is made of each answer to a revocation, also of those
// that a real step-ca cannot be made to give.
func TestRevoke(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(func() {
		other.Close()
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("%d requests went where a redirect pointed", n)
		}
	})
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/1.0/revoke", status) }
	}
	const (
		internal  = "The certificate authority encountered an Internal Server Error. Please see the certificate authority logs for more info."
		passedOn  = "the CA behind this registration authority has refused it"
		stale     = "before it failed"
		noConfirm = "no confirmation"
	)
	message := func(status int, text string) http.HandlerFunc {
		return answerWith(status, fmt.Sprintf(`{"status":%d,"message":%q}`, status, text))
	}
	const (
		revoked, already, failed, unknown = revocation.Revoked, revocation.AlreadyRevoked, revocation.Failed, revocation.Unknown
		nothing, others, again, fresh     = revocation.Nothing, revocation.Others, revocation.Again, revocation.FreshToken
	)
	for _, tt := range []struct {
		name              string
		handler           http.HandlerFunc
		status            revocation.Status
		next              revocation.Next
		text, hint, cause string
	}{
		{"ok", answerWith(200, `{"status":"ok"}`), revoked, nothing, "", "", ""},
		{"other status", answerWith(200, `{"status":"maybe"}`), unknown, again, `no confirmation (its status is "maybe")`, "", ""},
		{"no status", answerWith(200, `{}`), unknown, again, noConfirm, "", ""},
		{"not JSON", answerWith(200, "<html>welcome</html>"), unknown, again, "", "", ""},
		{"created and empty", answerWith(201, ""), unknown, again, "", "", ""},
		{"redirect", redirect(302), failed, nothing, "answered with a redirect to", "redirects are not followed", ""},
		{"redirect with body", redirect(307), failed, nothing, "answered with a redirect to", "redirects are not followed", ""},
		{"already", message(400, "The request could not be completed: certificate with serial number '1' is already revoked."), already, nothing, "", "", ""},
		{"bad request", message(400, "no good"), failed, others, "no good (HTTP 400, request ID req-1)", "", "no good (HTTP 400)"},
		{"no certificate", message(400, "missing ott or client certificate"), failed, others, "client certificate (HTTP 400", "may end TLS", "missing ott or client certificate (HTTP 400)"},
		{"unauthorized", message(401, "not you."), failed, fresh, "not you (HTTP 401, request ID req-1)", "dnsNames", "not you (HTTP 401)"},
		{"forbidden", message(403, "never"), failed, others, "never (HTTP 403", "", "never (HTTP 403)"},
		{"not found", answerWith(404, "<h1>Not\n here</h1>"), failed, others, "<h1>Not here</h1> (HTTP 404", "", "<h1>Not here</h1> (HTTP 404)"},
		{"too many", message(429, "slowly"), failed, again, "slowly (HTTP 429", "", "slowly (HTTP 429)"},
		{"no database", message(501, "not implemented"), failed, nothing, "(HTTP 501", "has no database", "not implemented (HTTP 501)"},
		{"server error", message(500, internal), unknown, again, "info (HTTP 500", stale, strings.TrimSuffix(internal, ".") + " (HTTP 500)"},
		{"proxy error", answerWith(502, ""), unknown, again, "Bad Gateway (HTTP 502", stale, "Bad Gateway (HTTP 502)"},
		{"passed on", message(400, internal), failed, others, passedOn + ", most likely because it is revoked already: The", "--dry-run --verify", passedOn + " (HTTP 400)"},
		{"passed on, unauthorized", message(401, internal), failed, others, passedOn + ": The", "the log of that CA", passedOn + " (HTTP 401)"},
		{"passed on, no database", message(501, internal), failed, others, passedOn + ": The", "the log of that CA", passedOn + " (HTTP 501)"},
		{"almost passed on", message(400, internal+" Really."), failed, others, "Really (HTTP 400", "", internal + " Really (HTTP 400)"},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown, again, "the connection ended before the answer: ", "", ""},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"status":`)
		}, unknown, again, "", "", ""},
		{"half a refusal", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(400)
			fmt.Fprint(w, `certificate is already revoked`)
		}, unknown, again, "the connection ended before the answer: ", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := connect(t, configOf(t, serve(t, tt.handler))).Revoke(t.Context(), revocation.Request{Token: "secret-token"})
			checkAnswer(t, a, tt.status, tt.next, tt.text, tt.hint)
			if a.Cause != tt.cause {
				t.Errorf("cause %q, want %q", a.Cause, tt.cause)
			}
			if len(a.RequestID) != 36 {
				t.Errorf("request ID %q", a.RequestID)
			}
			if a.StaleCRL != (tt.name == "server error") {
				t.Errorf("StaleCRL %t", a.StaleCRL)
			}
		})
	}
}

func checkAnswer(t *testing.T, a revocation.Answer, status revocation.Status, next revocation.Next, text, hint string) {
	t.Helper()
	if a.Status != status || a.Next != next {
		t.Errorf("%s, next %d; want %s, next %d (error %v)", a.Status, a.Next, status, next, a.Err)
	}
	if a.Status.Done() != (a.Err == nil) {
		t.Errorf("%s with the error %v", a.Status, a.Err)
	} else if a.Err != nil {
		checkError(t, a.Err, text, hint)
	}
}

func checkError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %q in it", err, text)
	}
	if hints := strings.Join(problem.Hints(err), "\n"); !strings.Contains(hints, hint) || hint == "" && hints != "" {
		t.Errorf("hints %q, want %q in them", hints, hint)
	}
}

// TestLost shows what is made of a revocation that the CA has not answered.
func TestLost(t *testing.T) {
	t.Parallel()
	reached := func(t *testing.T, c *CA) {
		if _, err := c.Provisioners(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = c.Close(t.Context()) // or the next request may find a connection that has just ended
	}
	for _, tt := range []struct {
		name   string
		do     func(t *testing.T, c *CA, server *httptest.Server, cancel func()) // before the revocation
		status revocation.Status
		next   revocation.Next
		text   string
		sent   bool
	}{
		{"never reached", func(_ *testing.T, _ *CA, server *httptest.Server, _ func()) { server.Close() },
			revocation.Failed, revocation.Nothing, "cannot be reached", false},
		{"not reached any more", func(t *testing.T, c *CA, server *httptest.Server, _ func()) { reached(t, c); server.Close() },
			revocation.NotAttempted, revocation.Reach, "cannot be reached", false},
		{"interrupted", func(_ *testing.T, _ *CA, _ *httptest.Server, cancel func()) { cancel() },
			revocation.NotAttempted, revocation.Reach, "interrupted", false},
		{"interrupted after a contact", func(t *testing.T, c *CA, _ *httptest.Server, cancel func()) { reached(t, c); cancel() },
			revocation.NotAttempted, revocation.Reach, "interrupted", false},
		{"interrupted after the request", func(*testing.T, *CA, *httptest.Server, func()) {},
			revocation.Unknown, revocation.Again, "interrupted before the answer", true},
		{"untrusted", func(t *testing.T, c *CA, _ *httptest.Server, _ func()) {
			c.http.Transport.(guard).base.TLSClientConfig.RootCAs = x509.NewCertPool()
		}, revocation.Failed, revocation.Nothing, "certificate signed by unknown authority", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					fmt.Fprint(w, `{}`)
					return
				}
				if tt.name == "interrupted after the request" {
					cancel()
				}
				<-r.Context().Done()
			}))
			c := connect(t, configOf(t, server))
			tt.do(t, c, server, cancel)
			a := c.Revoke(ctx, revocation.Request{})
			if a.Status != tt.status || a.Next != tt.next || a.Err == nil || !strings.Contains(a.Err.Error(), tt.text) {
				t.Errorf("%s, next %d, error %v; want %s, next %d, %q", a.Status, a.Next, a.Err, tt.status, tt.next, tt.text)
			}
			if (a.RequestID != "") != tt.sent {
				t.Errorf("request ID %q", a.RequestID)
			}
			if errors.Is(a.Err, problem.ErrInterrupted) != (tt.text == "interrupted") {
				t.Errorf("error %v", a.Err)
			}
		})
	}
}

// transport is a way to the CA that a test makes up.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

// fakeCA returns a CA behind a made-up transport.
func fakeCA(t *testing.T, way transport) *CA {
	t.Helper()
	c := connect(t, Config{URL: &url.URL{Scheme: "https", Host: "ca.test"}, Roots: []*x509.Certificate{}, Timeout: time.Minute, UserAgent: "test"})
	var err error
	if c.api, err = ca.NewClient(c.url.String(), ca.WithTransport(way), ca.WithTimeout(0)); err != nil {
		t.Fatal(err)
	}
	c.http.Transport = way
	return c
}

// TestUnanswered shows what the end of a request says about a revocation. An
// alert of TLS says nothing, once it was sent, unless a client certificate may be
// what the CA refuses.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	alert := &net.OpError{Op: "remote error", Err: tls.AlertError(20)}
	const refused = "refused the connection: remote error"
	for _, tt := range []struct {
		name     string
		err      error
		presents bool
		status   revocation.Status
		next     revocation.Next
		text     string
	}{
		{"too late", context.DeadlineExceeded, false, revocation.Unknown, revocation.Again, "no answer within 1m0s"},
		{"too late to send it", &unsentError{error: context.DeadlineExceeded}, false, revocation.Failed, revocation.Nothing, "asked to revoke and did not answer in time"},
		{"after the request", alert, false, revocation.Unknown, revocation.Again, "the connection ended before the answer"},
		{"after the request and a certificate", alert, true, revocation.Failed, revocation.Nothing, refused},
		{"before the request", &unsentError{error: alert}, false, revocation.Failed, revocation.Nothing, refused},
	} {
		c := fakeCA(t, func(*http.Request) (*http.Response, error) { return nil, tt.err })
		c.presentsCertificate = tt.presents
		if a := c.Revoke(t.Context(), revocation.Request{}); a.Status != tt.status || a.Next != tt.next || !strings.Contains(a.Err.Error(), tt.text) {
			t.Errorf("%s: %s, next %d, error %v; want %s, next %d, %q", tt.name, a.Status, a.Next, a.Err, tt.status, tt.next, tt.text)
		}
	}
}

// TestAsk shows which failures of a question are transient, and that it is
// repeated no longer than allowed.
func TestAsk(t *testing.T) {
	t.Parallel()
	busy := &refusal{status: 503, text: "busy"}
	cut := errors.New("connection reset")
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
		{"redirect", &redirectError{status: 302, location: "/x"}, true, 1, `answered with a redirect to "/x" (HTTP 302)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				c := &client{url: &url.URL{Scheme: "https", Host: "ca.test"}, timeout: time.Minute, retryFor: time.Minute}
				if tt.reached {
					c.chains.Store(new([][]*x509.Certificate))
				}
				err := c.ask(t.Context(), "asked", func(context.Context) error {
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
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := &client{url: new(url.URL), timeout: time.Minute, retryFor: time.Hour}
		if err := c.ask(ctx, "asked", func(context.Context) error { return busy }); !errors.Is(err, problem.ErrInterrupted) {
			t.Errorf("a signal while waiting: %v", err)
		}
	})
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

// TestProvisionerPages shows that all pages of the provisioners are read, on
// one connection with everything else.
func TestProvisionerPages(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/provisioners", func(w http.ResponseWriter, r *http.Request) {
		page := map[string]any{"provisioners": []map[string]string{{"type": "ACME", "name": "acme" + r.URL.Query().Get("cursor")}}}
		if r.URL.Query().Get("cursor") == "" {
			page["nextCursor"] = "2"
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	mux.Handle("/revoke", answerWith(200, `{"status":"ok"}`))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := connect(t, configOf(t, server))
	list, err := c.Provisioners(t.Context())
	if err != nil || len(list) != 2 || list[1].GetName() != "acme2" {
		t.Fatalf("Provisioners() = %v, %v", list, err)
	}
	for range 3 {
		if a := c.Revoke(t.Context(), revocation.Request{}); a.Status != revocation.Revoked {
			t.Fatal(a.Err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestEvidence shows what is said of a CA that has no CRL, and that an error
// comes without evidence.
func TestEvidence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		intermediates int // the status
		crl           http.HandlerFunc
		text, hint    string
	}{
		{"none", 201, answerWith(404, `{"status":404,"message":"no CRL available"}`), "the CA has no CRL: no CRL available (HTTP 404", revocation.NoCRLHint},
		{"none, an older CA", 404, answerWith(404, ""), "the CA has no CRL: Not Found (HTTP 404", revocation.NoCRLHint},
		{"registration authority", 501, answerWith(404, ""), "a registration authority has no CRL: Not Found (HTTP 404", "with the --ca-url of the CA itself"},
		{"no answer", 201, answerWith(502, "bad gateway"), "was asked for its CRL and answered: bad gateway (HTTP 502", noStepCA},
		{"redirect", 201, http.RedirectHandler("/elsewhere", http.StatusFound).ServeHTTP, "answered with a redirect to", "redirects are not followed"},
		{"HTML", 201, answerWith(200, "<html>"), "reading the CRL: ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("/1.0/intermediates", answerWith(tt.intermediates, `{"crts":[]}`))
			mux.HandleFunc("/1.0/crl", tt.crl)
			found, err := connect(t, configOf(t, serve(t, mux))).Evidence(t.Context())
			if found != nil {
				t.Errorf("evidence %v", found)
			}
			checkError(t, err, tt.text, tt.hint)
		})
	}
}

// TestFetchRoot shows which answers to the question for a root are trusted, and
// that all others are failures with a CA that was contacted.
func TestFetchRoot(t *testing.T) {
	t.Parallel()
	var root *x509.Certificate
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "test" {
			t.Errorf("the user agent is %q", r.UserAgent())
		}
		switch sum := strings.TrimPrefix(r.URL.Path, "/1.0/root/"); sum[:1] {
		case "0":
			http.NotFound(w, r)
		case "1":
			fmt.Fprint(w, "<html>")
		case "2":
			fmt.Fprint(w, `{}`)
		default:
			_ = json.NewEncoder(w).Encode(api.RootResponse{RootPEM: api.Certificate{Certificate: root}})
		}
	}))
	root = server.Certificate()
	right := x509util.Fingerprint(root)
	for _, tt := range []struct{ sum, text, hint string }{
		{sum: right},
		{"0", "has no root certificate with the fingerprint 0: 404 page not found (HTTP 404", fingerprintHint},
		{"1", "answered what is not JSON", noStepCA},
		{"2", "answered with another one", fingerprintHint},
		{"x" + right[1:], "answered with another one", fingerprintHint},
	} {
		cfg := configOf(t, server)
		cfg.Roots, cfg.Fingerprint = nil, tt.sum
		c, err := Connect(t.Context(), cfg, nil)
		if tt.text == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.sum, err)
			}
			continue
		}
		checkError(t, err, tt.text, tt.hint)
		if c != nil || problem.Code(problem.Default(err, problem.Usage)) != problem.Failed {
			t.Errorf("%s: %v, and a code that is not fixed", tt.sum, c)
		}
	}
}

// TestConcurrency shows that a number that is asked for counts.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	if c := new(CA); c.Concurrency(0) != DefaultConcurrency || c.Concurrency(1000) != 1000 {
		t.Error(c.Concurrency(0), c.Concurrency(1000))
	}
}
