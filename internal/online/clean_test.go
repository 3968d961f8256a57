package online

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// secret looks like a token with all characters that one can have.
const secret = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.a-b_C-d_E-f_0-1_2-3_4-5_6-7_8-9_AbCdEfGhIjKlMnOpQrStUvWxYz"

// minPart is how many characters of a secret give something of it away.
const minPart = 8

// TestEcho shows that a CA cannot have the token shown, or long texts kept,
// wherever it puts them.
func TestEcho(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 60_000)
	raw := func(format string) func(string) http.HandlerFunc {
		return func(s string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, format, s)
			}
		}
	}
	for name, answer := range map[string]func(s string) http.HandlerFunc{
		"message": func(s string) http.HandlerFunc { return answerWith(403, `{"status":403,"message":"`+s+`"}`) },
		"page":    func(s string) http.HandlerFunc { return answerWith(502, "<html>"+s) },
		"revoked": func(s string) http.HandlerFunc {
			return answerWith(400, `{"status":400,"message":"The request could not be completed: certificate with serial number '`+s+`' is already revoked."}`)
		},
		"status":     func(s string) http.HandlerFunc { return answerWith(200, `{"status":"`+s+`"}`) },
		"number":     func(s string) http.HandlerFunc { return answerWith(200, `{"status":1`+strings.Repeat("0", len(s))+`}`) },
		"request ID": raw("HTTP/1.1 403 No\r\nX-Request-Id: %s\r\n\r\n"),
		"redirect":   raw("HTTP/1.1 302 Found\r\nLocation: /%s\r\n\r\n"),
		"code":       raw("HTTP/1.1 %s\r\n\r\n"),
		"line":       raw("%s\r\n\r\n"),
		"header":     raw("HTTP/1.1 200 OK\r\n%s\r\n\r\n"),
		"length":     raw("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n"),
		"encoding":   raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n"),
		"chunk":      raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range []string{secret, secret[:90], secret + long, long[:150] + secret} {
				a := connect(t, configOf(t, serveHTTP1(t, answer(s)))).Revoke(t.Context(), revocation.Request{Token: secret})
				if a.Err == nil {
					t.Fatal("no error")
				}
				for _, shown := range []string{a.Err.Error(), a.Cause} {
					if len(shown) > maxText+400 {
						t.Errorf("%d characters are kept: %.100s", len(shown), shown)
					}
					for i := range len(secret) - minPart {
						if strings.Contains(shown, secret[i:i+minPart]) {
							t.Fatalf("shown: %s", shown)
						}
					}
				}
			}
		})
	}
}

// TestLaterEcho shows that a CA cannot have a part of the token shown that it was
// sent before.
func TestLaterEcho(t *testing.T) {
	t.Parallel()
	c := connect(t, configOf(t, serve(t, answerWith(403, secret[20:90]))))
	c.Revoke(t.Context(), revocation.Request{Token: secret})
	_, err := c.Provisioners(t.Context())
	checkError(t, err, "answered: (a token) (HTTP 403", noStepCA)
}

// TestPasswordEcho shows that a CA cannot have a password shown that it knows, too.
func TestPasswordEcho(t *testing.T) {
	t.Parallel()
	problem.Hide("correct horse battery")
	a := connect(t, configOf(t, serve(t, answerWith(403, "wrong: correct+horse%20batt")))).Revoke(t.Context(), revocation.Request{Token: secret})
	checkError(t, a.Err, "wrong: (a secret) (HTTP 403", "")
}
