package online

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	"go.step.sm/crypto/minica"
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

// serveHTTP1 starts a CA that does not speak HTTP/2.
func serveHTTP1(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(handler)
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

func checkError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %q in it", err, text)
	}
	if hints := strings.Join(problem.Hints(err), "\n"); !strings.Contains(hints, hint) || hint == "" && hints != "" {
		t.Errorf("hints %q, want %q in them", hints, hint)
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

// TestIssuers shows that a CA cannot name intermediates that its root has not
// signed.
func TestIssuers(t *testing.T) {
	t.Parallel()
	ours, err := minica.New()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := minica.New(minica.WithName(ours.Root.Subject.CommonName))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ours.Sign(&x509.Certificate{PublicKey: key.Public(), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	second := *ours.Intermediate
	second.Raw, second.SerialNumber = nil, big.NewInt(2)
	der, err := x509.CreateCertificate(rand.Reader, &second, ours.Root, ours.Intermediate.PublicKey, ours.RootSigner)
	if err != nil {
		t.Fatal(err)
	}
	older, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var list api.IntermediatesResponse
	for _, c := range []*x509.Certificate{ours.Intermediate, older, stranger.Intermediate, stranger.Root} {
		list.Certificates = append(list.Certificates, api.NewCertificate(c))
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(list) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, ours.Intermediate.Raw}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg := configOf(t, server)
	cfg.Roots = []*x509.Certificate{ours.Root, stranger.Root}
	issuers, err := connect(t, cfg).Issuers(t.Context())
	if want := []*x509.Certificate{ours.Root, ours.Intermediate, older}; err != nil || !slices.EqualFunc(issuers, want, (*x509.Certificate).Equal) {
		t.Errorf("%d issuers, %v", len(issuers), err)
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
		{"none", 201, answerWith(404, `{"status":404,"message":"no CRL available"}`), "the CA has no CRL (HTTP 404", revocation.NoCRLHint},
		{"none, an older CA", 404, answerWith(404, ""), "the CA has no CRL (HTTP 404", revocation.NoCRLHint},
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
		{"1", "answered with something that is not JSON", noStepCA},
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
