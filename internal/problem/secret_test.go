package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"strings"
	"testing"
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

// bytewise writes every byte in a format.
func bytewise(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
}

func inJSON(s string) string { b, _ := json.Marshal(s); return strings.Trim(string(b), `"`) }

var encodings = map[string]func(string) string{
	"plain": func(s string) string { return s }, "JSON": inJSON, "URL": url.QueryEscape, "HTML": html.EscapeString,
	"URL of the rest": strings.NewReplacer(".", "%2E", "-", "%2d", "_", "%5f").Replace, "URL of all": bytewise("%%%02X"), "URL twice": bytewise("%%25%02X"),
	"JSON of all": each(`\u%04x`), "hexadecimal": bytewise(`\x%02x`), "HTML of all": each("&#%d;"), "hexadecimal HTML": each("&#x%X;"),
	"HTML in JSON": func(s string) string { return inJSON(html.EscapeString(inJSON(s))) }, "names": strings.NewReplacer(".", "&period;", "_", "&lowbar;").Replace,
	"slashes": strings.NewReplacer(".", `\.`, "-", `\-`, "_", `\_`).Replace,
}

// TestClean shows that no part of a secret is left of a text, however the other
// side writes it, and that the rest stays.
func TestClean(t *testing.T) {
	t.Parallel()
	const password = "hören & \"sehen\" <1&2> ünd schweigen"
	Hide(password)
	Hide("lang")
	Hide("no") // too short
	for name, encode := range encodings {
		for _, part := range []string{secret, secret[5:], secret[:len(secret)-5], secret[40:70], secret[20 : 20+minPart]} {
			shown := Clean("blocked: {"+encode(part)+"} (see 1234567890)", secret)
			if want := "blocked: {(a token)} (see 1234567890)"; shown != want {
				t.Errorf("%s: %q", name, shown)
			}
		}
		for _, part := range []string{password, password[7:], password[:20], "lang"} {
			shown := Clean("no: {"+encode(part)+"} (see 1234567890)", secret)
			if want := "no: {(a secret)} (see 1234567890)"; shown != want {
				t.Errorf("%s: %q", name, shown)
			}
		}
		if shown := Clean("blocked: {"+encode(secret)+"}", ""); shown != "blocked: {(a token)}" {
			t.Errorf("a token that was not sent, %s: %q", name, shown)
		}
	}
	lines := Clean("blocked: {"+secret[:30]+"\n"+secret[30:90]+" "+secret[90:], secret)
	for i := range len(secret) - minPart {
		if strings.Contains(lines, secret[i:i+minPart]) {
			t.Errorf("lines: %q", lines)
		}
	}
	for _, text := range []string{"", "e", "eyJhbGc", "The request lacked necessary authorization to be completed", "100% &c; \\u00e4 %e4 &#228; &amp;#65; \\ud800 \xff", strings.Repeat("ä", 1000)} {
		if shown := Clean(text, secret); shown != text {
			t.Errorf("%q became %q", text, shown)
		}
	}
}

// TestCleaned shows that an error stays the error that it is.
func TestCleaned(t *testing.T) {
	t.Parallel()
	Hide("swordfish")
	err := fmt.Errorf("access denied (swordfish): %w", io.EOF)
	if cleaned := Cleaned(err); cleaned.Error() != "access denied ((a secret)): EOF" || !errors.Is(cleaned, io.EOF) {
		t.Errorf("%v", cleaned)
	}
	if cleaned := Cleaned(io.EOF); cleaned != io.EOF || Cleaned(nil) != nil {
		t.Errorf("%v", cleaned)
	}
}
