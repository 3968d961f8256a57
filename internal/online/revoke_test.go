package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

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
		noConfirm = "not a confirmation"
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
		{"other status", answerWith(200, `{"status":"maybe"}`), unknown, again, `not a confirmation (its status is "maybe")`, "", ""},
		{"no status", answerWith(200, `{}`), unknown, again, noConfirm, "", ""},
		{"not JSON", answerWith(200, "<html>welcome</html>"), unknown, again, noConfirm + " (it is not JSON: ", "", ""},
		{"JSON and more", answerWith(200, `{"status":"ok"}{"status":"no"}`), unknown, again, noConfirm + " (it is not JSON: ", "", ""},
		{"another type", answerWith(200, `{"status":["ok"]}`), unknown, again, noConfirm + " (it cannot be read: ", "", ""},
		{"created and empty", answerWith(201, ""), unknown, again, noConfirm + " (it is not JSON: ", "", ""},
		{"no content", answerWith(204, ""), unknown, again, noConfirm + " (it is not JSON: ", "", ""},
		{"redirect", redirect(302), failed, nothing, "answered with a redirect to", "redirects are not followed", ""},
		{"redirect with body", redirect(307), failed, nothing, "answered with a redirect to", "redirects are not followed", ""},
		{"already", message(400, "The request could not be completed: certificate with serial number '1' is already revoked."), already, nothing, "", "", ""},
		{"already, in other words", message(400, "certificate with serial number '1' is already revoked"), failed, others, "already revoked (HTTP 400", "", "certificate with serial number '1' is already revoked (HTTP 400)"},
		{"another already", message(400, "The request could not be completed: certificate with serial number '2' is already revoked."), failed, others, "'2' is already revoked (HTTP 400", "",
			"The request could not be completed: certificate with serial number '2' is already revoked (HTTP 400)"},
		{"already, forbidden", message(403, "The request could not be completed: certificate with serial number '1' is already revoked."), failed, others, "already revoked (HTTP 403", "",
			"The request could not be completed: certificate with serial number '1' is already revoked (HTTP 403)"},
		{"already, not of step-ca", answerWith(400, `{"message":"The request could not be completed: certificate with serial number '1' is already revoked."}`), failed, others, "already revoked (HTTP 400", "",
			"The request could not be completed: certificate with serial number '1' is already revoked (HTTP 400)"},
		{"already, a page", answerWith(400, "<html>this session is already revoked, please log in</html>"), failed, others, "please log in", "", "<html>this session is already revoked, please log in</html> (HTTP 400)"},
		{"bad request", message(400, "no good"), failed, others, "no good (HTTP 400, request ID req-1)", "", "no good (HTTP 400)"},
		{"no certificate", message(400, "missing ott or client certificate"), failed, others, "client certificate (HTTP 400", "may end TLS", "missing ott or client certificate (HTTP 400)"},
		{"unauthorized", message(401, "not you."), failed, fresh, "not you (HTTP 401, request ID req-1)", "dnsNames", "not you (HTTP 401)"},
		{"forbidden", message(403, "never"), failed, others, "never (HTTP 403", "", "never (HTTP 403)"},
		{"not found", answerWith(404, "<h1>Not\n here</h1>"), failed, others, "<h1>Not here</h1> (HTTP 404", "", "<h1>Not here</h1> (HTTP 404)"},
		{"too many", message(429, "slowly"), failed, again, "slowly (HTTP 429", "", "slowly (HTTP 429)"},
		{"no database", message(501, "not implemented"), failed, nothing, "(HTTP 501", "has no database", "not implemented (HTTP 501)"},
		{"server error", message(500, internal), unknown, again, "info (HTTP 500", stale, strings.TrimSuffix(internal, ".") + " (HTTP 500)"},
		{"proxy error", answerWith(502, ""), unknown, again, "Bad Gateway (HTTP 502", stale, "Bad Gateway (HTTP 502)"},
		{"passed on", message(400, internal), failed, revocation.Alone, passedOn + ", most likely because it is revoked already: The", "--dry-run --verify", passedOn + " (HTTP 400)"},
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
			a := connect(t, configOf(t, serve(t, tt.handler))).Revoke(t.Context(), revocation.Request{Serial: target.Serial{19: 1}, Token: "secret-token"})
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
			c.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
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

// transport answers in place of a CA.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

// fakeCA returns a CA that a function answers for. It finds everything sent.
func fakeCA(t *testing.T, answer transport) *CA {
	t.Helper()
	c := connect(t, Config{URL: &url.URL{Scheme: "https", Host: "ca.test"}, Roots: []*x509.Certificate{}, Timeout: time.Minute, UserAgent: "test"})
	fake := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	fake.RegisterProtocol("https", answer)
	c.way.transport, c.revoking.transport = fake, fake
	return c
}

// TestUnanswered shows what the end of a request says about a revocation. Of the
// alerts of TLS only those about certificates say anything once it was sent, and
// only where a client certificate may be what the CA refuses.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	const (
		unknown, failed = revocation.Unknown, revocation.Failed
		refused, ended  = "refused the connection: remote error", "the connection ended before the answer: remote error"
	)
	for _, way := range []struct{ sent, presents bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		var end error
		c := fakeCA(t, func(req *http.Request) (*http.Response, error) {
			if way.sent {
				httptrace.ContextClientTrace(req.Context()).WroteHeaders()
			}
			return nil, end
		})
		c.presentsCertificate = way.presents
		check := func(status revocation.Status, next revocation.Next, text string) {
			t.Helper()
			a := c.Revoke(t.Context(), revocation.Request{})
			if a.Status != status || a.Next != next || !strings.Contains(a.Err.Error(), text) {
				t.Errorf("%v, %+v: %s, next %d, error %v; want %s, next %d, %q", end, way, a.Status, a.Next, a.Err, status, next, text)
			}
		}
		for code := range 256 {
			end = &net.OpError{Op: "remote error", Err: tls.AlertError(code)}
			isRefusal := slices.Contains([]int{42, 43, 44, 45, 46, 48, 49, 116}, code)
			if !way.sent || way.presents && isRefusal {
				check(failed, revocation.Nothing, refused)
			} else {
				check(unknown, revocation.Again, ended)
			}
		}
		end = context.DeadlineExceeded
		if way.sent {
			check(unknown, revocation.Again, "no answer within 1m0s")
		} else {
			check(failed, revocation.Nothing, "asked to revoke and did not answer in time")
		}
	}
}
