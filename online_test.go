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
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/ca"
)

// answerWith is a handler that gives one answer.
func answerWith(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Request-Id", "req-1")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// TestAnswers shows what is made of each answer to a revocation, of those too
// that a real step-ca cannot be made to give.
func TestAnswers(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/1.0/revoke", status) }
	}
	const asJSON = "application/json"
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    status
		text    string
		hint    string
	}{
		{"ok", answerWith(200, asJSON, `{"status":"ok"}`), statusRevoked, "", ""},
		{"other status", answerWith(200, asJSON, `{"status":"maybe"}`), statusUnknown, `no confirmation (its status is "maybe")`, ""},
		{"no status", answerWith(200, asJSON, `{}`), statusUnknown, "no confirmation", ""},
		{"not JSON", answerWith(200, "text/html", "<html>welcome</html>"), statusUnknown, "", ""},
		{"created and empty", answerWith(201, asJSON, ""), statusUnknown, "", ""},
		{"redirect", redirect(http.StatusFound), statusFailed, "a redirect to", "redirects are not followed"},
		{"redirect with body", redirect(http.StatusTemporaryRedirect), statusFailed, "a redirect to", "redirects are not followed"},
		{"already", answerWith(400, asJSON, `{"status":400,"message":"The request could not be completed: certificate with serial number '1' is already revoked."}`), statusAlreadyRevoked, "", ""},
		{"bad request", answerWith(400, asJSON, `{"status":400,"message":"no good"}`), statusFailed, "no good (HTTP 400, request ID req-1)", ""},
		{"unauthorized", answerWith(401, asJSON, `{"status":401,"message":"not you."}`), statusFailed, "not you (HTTP 401, request ID req-1)", "dnsNames"},
		{"forbidden", answerWith(403, asJSON, `{"status":403,"message":"never"}`), statusFailed, "never (HTTP 403", ""},
		{"not found", answerWith(404, "text/html", "<h1>Not\n here</h1>"), statusFailed, "<h1>Not here</h1> (HTTP 404", ""},
		{"no database", answerWith(501, asJSON, `{"status":501,"message":"not implemented"}`), statusFailed, "(HTTP 501", "has no database"},
		{"server error", answerWith(500, asJSON, `{"status":500,"message":"oops"}`), statusUnknown, "oops (HTTP 500", "before it failed"},
		{"proxy error", answerWith(502, "text/html", ""), statusUnknown, "Bad Gateway (HTTP 502", ""},
		{"cut off", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, statusUnknown, "ended before the answer", ""},
		{"half an answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"status":`)
		}, statusUnknown, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := revokeAt(t, tt.handler)
			if got := statusOf(err); got != tt.want {
				t.Errorf("status %s, want %s (error %v)", got, tt.want, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q, want %q in it", err, tt.text)
			}
			var p *problem
			if tt.hint != "" && (!errors.As(err, &p) || !strings.Contains(strings.Join(p.hints, "\n"), tt.hint)) {
				t.Errorf("no hint with %q in %#v", tt.hint, err)
			}
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("%d requests went where a redirect pointed", n)
		}
	})
}

// revokeAt sends one revocation to a CA that is only this handler.
func revokeAt(t *testing.T, handler http.Handler) error {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	return fakeCA(t, server).Revoke(context.Background(), &api.RevokeRequest{Serial: "1", OTT: "secret-token", Passive: true})
}

func fakeCA(t *testing.T, server *httptest.Server) *online {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := newOnline(context.Background(), &options{caURL: u, roots: []*x509.Certificate{server.Certificate()}, timeout: time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close(context.Background()) })
	return ca
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
}

// TestNotSent shows that a request that never left is no open question.
func TestNotSent(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(answerWith(200, "application/json", `{"status":"ok"}`))
	ca := fakeCA(t, server)
	server.Close()
	err := ca.Revoke(context.Background(), &api.RevokeRequest{Serial: "1", Passive: true})
	if got := statusOf(err); got != statusFailed {
		t.Errorf("status %s, want %s (error %v)", got, statusFailed, err)
	}
}

// transport is a way to the CA that a test makes up.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

// TestAlert shows what an alert of TLS says about a revocation: nothing, once it
// was sent, unless a client certificate may be what the CA refuses.
func TestAlert(t *testing.T) {
	t.Parallel()
	alert := &net.OpError{Op: "remote error", Err: tls.AlertError(20)}
	for _, tt := range []struct {
		name  string
		err   error
		shown bool
		want  status
	}{
		{"after the request", alert, false, statusUnknown},
		{"after the request and a certificate", alert, true, statusFailed},
		{"before the request", &unsentError{alert}, false, statusFailed},
	} {
		client, err := ca.NewClient("https://ca.test", ca.WithTransport(transport(func(*http.Request) (*http.Response, error) { return nil, tt.err })))
		if err != nil {
			t.Fatal(err)
		}
		o := &online{url: &url.URL{Scheme: "https", Host: "ca.test"}, client: client, timeout: time.Minute, chains: new(atomic.Pointer[[][]*x509.Certificate]), shown: tt.shown}
		err = o.Revoke(t.Context(), &api.RevokeRequest{Serial: "1", Passive: true})
		if got := statusOf(err); got != tt.want {
			t.Errorf("%s: status %s, want %s (error %v)", tt.name, got, tt.want, err)
		}
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
	mux.Handle("/revoke", answerWith(200, "application/json", `{"status":"ok"}`))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(w, r) }))
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := fakeCA(t, server)
	list, err := ca.Provisioners(context.Background())
	if err != nil || len(list) != 2 || list[1].GetName() != "acme2" {
		t.Fatalf("Provisioners() = %v, %v", list, err)
	}
	for range 3 {
		if err := ca.Revoke(context.Background(), &api.RevokeRequest{Serial: "1", Passive: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
