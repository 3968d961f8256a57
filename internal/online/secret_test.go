package online

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// secret looks like a token with all characters that one can have.
const secret = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.a-b_C-d_E-f_0-1_2-3_4-5_6-7_8-9_AbCdEfGhIjKlMnOpQrStUvWxYz"

// each writes every character in a format.
func each(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, format, r)
		}
		return b.String()
	}
}

func inJSON(s string) string { b, _ := json.Marshal(s); return strings.Trim(string(b), `"`) }

// TestHide shows that no part of a secret is left of a text, however the other
// side writes it, and that the rest stays.
func TestHide(t *testing.T) {
	t.Parallel()
	x := exchange{secret: secret}
	encodings := map[string]func(string) string{
		"plain": func(s string) string { return s }, "JSON": inJSON, "URL": url.QueryEscape, "HTML": html.EscapeString,
		"URL of the rest": strings.NewReplacer(".", "%2E", "-", "%2d", "_", "%5f").Replace, "URL of all": each("%%%02X"), "URL twice": each("%%25%02X"),
		"JSON of all": each(`\u%04x`), "hexadecimal": each(`\x%02x`), "HTML of all": each("&#%d;"), "hexadecimal HTML": each("&#x%X;"),
		"HTML in JSON": func(s string) string { return inJSON(html.EscapeString(inJSON(s))) }, "names": strings.NewReplacer(".", "&period;", "_", "&lowbar;").Replace,
		"slashes": strings.NewReplacer(".", `\.`, "-", `\-`, "_", `\_`).Replace, "lines": func(s string) string { return s[:30] + "\n" + s[30:90] + " " + s[90:] },
	}
	for name, encode := range encodings {
		for _, part := range []string{secret, secret[5:], secret[:len(secret)-5], secret[40:70], secret[20 : 20+minPart]} {
			if name == "lines" && len(part) < 100 {
				continue
			}
			shown := x.hide("blocked: {" + encode(part) + "} (see 1234567890)")
			if want := "blocked: {(a token)} (see 1234567890)"; shown != want && name != "lines" {
				t.Errorf("%s: %q", name, shown)
			}
			for i := range len(part) - minPart {
				if strings.Contains(shown, part[i:i+minPart]) {
					t.Errorf("%s: %q", name, shown)
				}
			}
		}
	}
	for _, text := range []string{"", "e", "eyJhbGc", "The request lacked necessary authorization to be completed", "100% &c; \\u00e4 %e4 &#228; &amp;#65; \xff", strings.Repeat("ä", maxText)} {
		if shown := x.hide(text); shown != text {
			t.Errorf("%q became %q", text, shown)
		}
		if shown := (exchange{}).hide(text); shown != text {
			t.Errorf("without a secret %q became %q", text, shown)
		}
	}
	for name, encode := range encodings {
		if shown := (exchange{}).hide("blocked: {" + encode(secret) + "}"); shown != "blocked: {(a token)}" && name != "lines" {
			t.Errorf("a token that was not sent, %s: %q", name, shown)
		}
	}
	if shown := x.hide(strings.Repeat("ä", maxText-10) + secret); shown != strings.Repeat("ä", maxText-10)+"(a token)…" {
		t.Errorf("cut: %q", shown)
	}
}

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
