//go:build unix

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A badAnswer is one way in which what is trusted as a CA answers badly. Whatever
// it is, the program has an outcome for each target and ends in time, takes
// little memory, and shows nothing of a token.
type badAnswer struct {
	name   string
	to     string           // the question that is answered like this, a part of its path; others are answered well
	answer http.HandlerFunc // or
	goAway string           // on which connections requests are turned away: first, or all
	only   string           // the protocol; empty: with HTTP/1.1 and HTTP/2
	args   string           // empty: revoke 100 certificates
	code   int
	status string // what becomes of the certificates: all that occur, in order
	text   string // a regular expression that standard error matches
}

const (
	oneArgs    = "--provisioner-key admin.jwk $one"
	tokenArgs  = "--token-file one.token $one"
	verifyArgs = "--provisioner-key admin.jwk --from list --force --verify"
	slowArgs   = verifyArgs + " --timeout 14s"
	certArgs   = "--provisioner-key admin.jwk --cert one.crt"

	lost      = "not-attempted unknown" // ten without an answer end the run
	http1     = "http/1.1"
	http2     = "h2"
	oneStream = "h2, one stream a connection"
	most      = 150 // MB
	inTime    = 10 * time.Second
	tooMuch   = "its answer cannot be used: it has more than "
	noConfirm = `the CA's answer is not a confirmation \(`
)

var badAnswers = []badAnswer{
	// More than anybody wants.
	{name: "bomb", to: "revoke", answer: bomb, code: 1, status: lost, text: noConfirm + "it has more than 64 KiB"},
	{name: "endless", to: "revoke", answer: endless(`{"status":"`, "A"), code: 1, status: lost, text: noConfirm + "it has more than 64 KiB"},
	{name: "endless refusal", to: "revoke", answer: refusing(403, endless(`{"message":"`, "A")), code: 1, status: "failed not-attempted", text: "AAA.* \\(HTTP 403"},
	{name: "endless on connections of their own", to: "revoke", answer: endless(`{"status":"`, "A"), only: oneStream, code: 1, status: lost, text: "64 KiB"},
	{name: "bomb", to: "provisioners", args: oneArgs, answer: bomb, code: 1, status: "not-attempted", text: "answered with something that is not JSON"},
	{name: "endless", to: "provisioners", args: oneArgs, answer: endless(`{"provisioners":["`, "A"), code: 1, status: "not-attempted", text: tooMuch + "16 MiB"},
	{name: "many", to: "provisioners", args: oneArgs, answer: times(`{"provisioners":[`, `{"type":"JWK"},`, 1_000_000, `{}]}`), code: 1, status: "not-attempted", text: "it lists too much"},
	{name: "many of nothing", to: "provisioners", args: oneArgs, answer: times(`{"provisioners":[`, `{},`, 5_000_000, `{}]}`), code: 1, status: "not-attempted", text: "it lists too much"},
	{name: "deep", to: "provisioners", args: oneArgs, answer: times(`{"provisioners":`, `[`, 10_000_000, ``), code: 1, status: "not-attempted", text: "answer"},
	{name: "a large one", to: "provisioners", args: oneArgs, answer: times(`{"provisioners":[{"type":"AWS","accounts":[`, `"",`, 5_000_000, `""]}]}`), code: 1, status: "not-attempted", text: "it lists too much"},
	{name: "endless", to: "intermediates", args: certArgs, answer: endless(`{"crts":["`, "A"), code: 1, status: "not-attempted", text: tooMuch + "1 MiB"},
	{name: "endless", to: "root", args: "--fingerprint $sum " + oneArgs, answer: endless(`{"ca":"`, "A"), code: 1, status: "not-attempted", text: tooMuch + "1 MiB"},
	{name: "bomb", to: "root", args: "--fingerprint $sum " + oneArgs, answer: bomb, code: 1, status: "not-attempted", text: "answered with something that is not JSON"},
	{name: "endless", to: "crl", args: slowArgs, answer: endless("\x30\x84\x03\xff\xff\xf0", "\x00"), code: 4, status: "revoked", text: "not proven: reading the CRL"},
	{name: "too large", to: "crl", args: slowArgs, answer: endless("\x30\x84\x10\x00\x00\x00", "\x00"), code: 4, status: "revoked", text: "not proven: .*" + tooMuch + "64 MiB"},
	{name: "bomb", to: "crl", args: verifyArgs, answer: bomb, code: 4, status: "revoked", text: "not proven: reading the CRL"},
	{name: "unsigned", to: "crl", args: slowArgs, answer: unsigned, code: 4, status: "revoked", text: "not proven: the CRL is not signed by this CA"},
	{name: "large, but good", to: "crl", args: slowArgs, answer: crl, status: "revoked", text: "100 certificates are on record as revoked"},
	{name: "headers", to: "revoke", answer: headers, code: 1, status: lost, text: "the connection ended before the answer"},
	{name: "informational", to: "revoke", answer: informational, code: 1, status: lost, text: "the connection ended before the answer"},
	{name: "informational", to: "provisioners", args: oneArgs, answer: informational, code: 1, status: "not-attempted", text: "cannot be reached"},

	// Later than anybody waits.
	{name: "drip", to: "revoke", answer: drip(""), code: 1, status: lost, text: "no answer within 3s"},
	{name: "drip", to: "provisioners", args: oneArgs, answer: drip(""), code: 1, status: "not-attempted", text: "did not answer in time"},
	{name: "drip", to: "crl", args: verifyArgs, answer: drip("\x30\x84\x01\x00\x00\x00"), code: 4, status: "revoked", text: "not proven: .*did not answer in time"},
	{name: "one page", to: "provisioners", args: oneArgs, answer: pages(func(int) string { return "x" }, 0), code: 1, status: "not-attempted", text: "its pages have no end"},
	{name: "endless pages", to: "provisioners", args: "--timeout 14s " + oneArgs, answer: pages(strconv.Itoa, 0), code: 1, status: "not-attempted", text: "its pages have no end"},
	{name: "slow pages", to: "provisioners", answer: pages(strconv.Itoa, 500*time.Millisecond), args: "--retry-for 1s " + oneArgs, code: 1, status: "not-attempted", text: "did not answer in time"},

	// Again and again.
	{name: "going away", goAway: "all", only: http2, args: "--allow-unknown --provisioner-key admin.jwk $one", code: 1, status: "not-attempted", text: "turned away 5 times"},
	{name: "going away", to: "revoke", goAway: "first", only: http2, args: tokenArgs, status: "revoked", text: "has been revoked"},
	{name: "going away, always", goAway: "all", only: http2, args: tokenArgs, code: 1, status: "unknown", text: "turned away 5 times"},
	{name: "going away, and refusing", to: "revoke", goAway: "first", answer: says(401, `{"status":401,"message":"used"}`), only: http2, args: tokenArgs, code: 1, status: "unknown", text: "used"},
	{name: "going away, and forbidding", to: "revoke", goAway: "first", answer: says(403, `{"status":403,"message":"no"}`), only: http2, args: tokenArgs, code: 1, status: "failed", text: "no"},
	{name: "redirects", to: "revoke", args: oneArgs, answer: http.RedirectHandler("/1.0/revoke", http.StatusTemporaryRedirect).ServeHTTP, code: 1, status: "failed", text: "answered with a redirect"},
	{name: "redirects", to: "provisioners", args: oneArgs, answer: http.RedirectHandler("/1.0/provisioners", http.StatusFound).ServeHTTP, code: 1, status: "not-attempted", text: "answered with a redirect"},

	// Nothing where there should be something.
	{name: "null", to: "provisioners", args: oneArgs, answer: says(200, `{"provisioners":[{"type":"JWK","name":"admin","key":null}]}`), code: 1, status: "not-attempted", text: "without its key"},
	{name: "null", to: "intermediates", answer: says(200, `{"crts":[null]}`), args: certArgs, code: 1, status: "not-attempted", text: "one of its certificates is empty"},
	{name: "empty", to: "intermediates", answer: says(200, `{"crts":[""]}`), args: verifyArgs, code: 4, status: "revoked", text: "not proven: .*one of its certificates is empty"},
	{name: "null", to: "root", answer: says(200, `{"ca":null}`), args: "--fingerprint $sum " + oneArgs, code: 1, status: "not-attempted", text: "answered with another one"},
	{name: "no content", to: "revoke", args: oneArgs, answer: says(204, ""), code: 1, status: "unknown", text: noConfirm},
	{name: "half", to: "revoke", args: oneArgs, answer: half, code: 1, status: "unknown", text: "the connection ended before the answer"},

	// What is no confirmation.
	{name: "not ok", to: "revoke", args: oneArgs, answer: says(200, `{"status":"maybe"}`), code: 1, status: "unknown", text: noConfirm + `its status is "maybe"`},
	{name: "another serial number", to: "revoke", args: oneArgs, answer: already("1"), code: 1, status: "failed", text: "'1' is already revoked"},
	{name: "a page", to: "revoke", args: oneArgs, answer: says(400, "<html>this session is already revoked"), code: 1, status: "failed", text: "this session"},
	{name: "already", to: "revoke", args: oneArgs, answer: already(""), status: "already-revoked", text: "was already revoked"},

	// The token itself, with STEPDEBUG=1.
	{name: "token in JSON", to: "revoke", answer: echo(403, `{"status":403,"message":%q}`, asIs), args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token in a page", to: "revoke", answer: echo(403, "<html>blocked: %s", asIs), args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token in a URL", to: "revoke", answer: echo(403, `{"status":403,"message":"%s"}`, each("%%%02X")), args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token escaped", to: "revoke", answer: echo(403, `{"status":403,"message":"%s"}`, each(`\\u%04x`)), args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token in HTML", to: "revoke", answer: echo(502, `%s`, each("&#%d;")), args: tokenArgs, code: 1, status: "unknown", text: `a token\)`},
	{name: "token as a status", to: "revoke", answer: echo(200, `{"status":%q}`, asIs), args: tokenArgs, code: 1, status: "unknown", text: `a token\)`},
	{name: "token as a line", to: "revoke", answer: raw("HTTP/1.1 %s\r\n\r\n"), only: http1, args: tokenArgs, code: 1, status: "unknown", text: `a token\)`},
	{name: "token as a reason", to: "revoke", answer: raw("HTTP/1.1 403 %s\r\n\r\n"), only: http1, args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token as an ID", to: "revoke", answer: raw("HTTP/1.1 403 No\r\nX-Request-Id: %s\r\n\r\n"), only: http1, args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token as a place", to: "revoke", answer: raw("HTTP/1.1 302 Found\r\nLocation: /%s\r\n\r\n"), only: http1, args: tokenArgs, code: 1, status: "failed", text: `a token\)`},
	{name: "token out of turn", to: "revoke", answer: raw("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}%s"), only: http1, args: tokenArgs + " --verify", code: 4, status: "revoked", text: "not proven"},
}

const badAnswersScript = `
bad-answers
`

// TestBadAnswers has the plugin talk to each bad CA. Its peak of memory is
// printed, as the largest of all.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	runSession(t, badAnswersScript, map[string]func(*testscript.TestScript, []string){
		"bad-answers": func(ts *testscript.TestScript, _ []string) {
			ca := newBadCA(&fixtures{TestScript: ts})
			t.Run("answers", func(t *testing.T) {
				for _, a := range badAnswers {
					for _, protocol := range []string{http1, http2} {
						if a.only == "" || a.only == protocol || a.only == oneStream && protocol == http2 {
							t.Run(cmp.Or(a.to, "any")+"/"+a.name+"/"+protocol, func(t *testing.T) {
								t.Parallel()
								ca.check(t, ts, a, protocol)
							})
						}
					}
				}
			})
			fmt.Printf("%-45s %8d MB (at most %d)\n", "memory, bad answers", ca.peak, most)
		},
	})
}

// check runs the plugin with one bad answer.
func (ca *badCA) check(t *testing.T, ts *testscript.TestScript, a badAnswer, protocol string) {
	s := &badServer{badCA: ca, badAnswer: a}
	url := s.start(t, protocol)
	dir := t.TempDir()
	peakFile, journal := filepath.Join(dir, "peak"), filepath.Join(dir, "journal")
	args := words(cmp.Or(a.args, "--provisioner-key admin.jwk --from list --force"), scriptVariable(t, ts))
	for _, flag := range [][]string{{"--root", "root.crt"}, {"--retry-for", "0s"}, {"--timeout", "3s"}} {
		if !slices.Contains(args, flag[0]) && !(flag[0] == "--root" && slices.Contains(args, "--fingerprint")) {
			args = append(args, flag...)
		}
	}
	args = append(args, "--ca-url", url, "--format", "json", "--journal", journal)
	start := time.Now()
	got := invocation{args: args, env: []string{"STEPDEBUG=1"}, peak: peakFile}.run(t, ts)
	took := time.Since(start)

	said := got.stdout + got.stderr
	if got.code != a.code || !regexp.MustCompile(a.text).MatchString(said) {
		t.Errorf("exit code %d, want %d, and %s", got.code, a.code, a.text)
	}
	count, _ := os.ReadFile(peakFile)
	peak, err := strconv.Atoi(string(count))
	if err != nil || peak > most || took > inTime+slack {
		t.Errorf("%d MB (%v), %s", peak, err, took)
	}
	journaled, _ := os.ReadFile(journal)
	s.mu.Lock() // some requests may be in flight
	defer s.mu.Unlock()
	s.checkOutcomes(t, got.stdout)
	if s.heard.in(said + string(journaled)) {
		t.Error("a part of a token is shown")
	}
	if strings.Contains(said, "goroutine ") {
		t.Error("it has panicked")
	}
	if t.Failed() {
		t.Logf("%s, %d MB, standard error:\n%.3000s\nstandard output:\n%.3000s", took, peak, got.stderr, got.stdout)
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.peak = max(ca.peak, peak)
}

// checkOutcomes checks that every target has an outcome, and that the attempts
// are as many as the requests.
func (s *badServer) checkOutcomes(t *testing.T, stdout string) {
	var found []string
	lines, attempts := 0, 0
	for line := range strings.Lines(stdout) {
		var o struct {
			Status   string
			Attempts int
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Error(err)
		}
		found, attempts, lines = append(found, o.Status), attempts+o.Attempts, lines+1
	}
	slices.Sort(found)
	if status := strings.Join(slices.Compact(found), " "); status != s.status {
		t.Errorf("the certificates are %s, want %s", status, s.status)
	}
	want := len(s.serials)
	if s.args != "" && !strings.Contains(s.args, "--from") {
		want = 1
	}
	// Of a connection that breaks, the server may have seen only a part.
	if lines != want || attempts < s.sent || s.goAway != "" && attempts > s.sent {
		t.Errorf("%d objects, want %d; %d attempts, and %d requests", lines, want, attempts, s.sent)
	}
}
