//go:build unix

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// hostile is a name that would change what a person sees, if it were shown as
// it is: colours, a window's title, a line of its own, text from right to left,
// a template of package ui. It is in all that comes from outside.
const hostile = "x\x1b[31m\x1b]0;title\x07\r\nPWNED: \u202eabc\u2066\u200f\u009b31m\u2028\u0085\u200b\ufeff\x7f{{ \"PWN\" }}{{ \"ED2\" }}\b"

const cleanScript = `
ca init crl
hostile-names
amend provisioners.json
ca start
issue mike
hostile-cases online
ca stop
hostile-cases offline
`

// A hostileCase is a command line with $EVIL for the hostile name; like other
// variables it is replaced after the line is split at blanks.
type hostileCase struct {
	args     string
	code     int
	question string // at a terminal, wait for this
	keys     string // and type these
	data     bool   // the output is JSON, with the hostile name in it
}

var hostileCases = map[string][]hostileCase{
	"online": {
		// Certificates.
		{args: "$admin --dry-run --cert evil.crt"},
		{args: "$admin --dry-run --cert evil.crt --format json", data: true},
		{args: "$admin --dry-run --verify --cert evil.crt"},
		{args: "$admin --verify --cert evil.crt --reason $EVIL"},
		{args: "$admin --cert evil.crt --format json --reason $EVIL", data: true},
		{args: "$admin --cert foreign.crt", code: 1},
		{args: "$admin --cert foreign.crt --format json", code: 1, data: true},
		{args: "$admin --cert ca.crt", code: 2},
		{args: "$admin --cert type.pem", code: 2},
		{args: "--cert evil.crt --key type.pem", code: 2},
		// Files, some of which are not there.
		{args: "$admin --cert $EVIL", code: 2},
		{args: "--cert evil.crt --key $EVIL", code: 2},
		{args: "--cert evil.crt --key evil.crt --key-password-file $EVIL", code: 2},
		{args: "--provisioner admin --provisioner-password-file $EVIL $mike", code: 2},
		{args: "--provisioner-key $EVIL $mike", code: 2},
		{args: "--x5c-cert $EVIL --x5c-key evil.key $mike", code: 2},
		{args: "--x5c-cert evil.crt --x5c-key $EVIL $mike", code: 2},
		{args: "--x5c-cert evil.crt --x5c-key evil.key --x5c-chain $EVIL $mike", code: 2},
		{args: "--token-file $EVIL $mike", code: 2},
		{args: "$admin --root $EVIL $mike", code: 2},
		{args: "--provisioner admin --provisioner-password-file ca/password --cert $EVIL_FILE", code: 1},
		{args: "$admin --dry-run --cert $EVIL_FILE"},
		{args: "--provisioner admin --provisioner-password-file $EVIL_FILE $mike", code: 1},
		{args: "--cert evil.crt --key $EVIL_FILE", code: 2},
		{args: "--token-file $EVIL_FILE $mike", code: 2},
		{args: "--cert evil.crt --key encrypted.key --key-password-file $EVIL_FILE", code: 2},
		// Other values.
		{args: "$admin $EVIL", code: 2},
		{args: "$admin --reasonCode $EVIL $mike", code: 2},
		{args: "--provisioner none$EVIL --password-file ca/password $mike", code: 1},
		{args: "--password-file ca/password --kid $EVIL $mike", code: 1},
		{args: "$admin --context $EVIL $mike", code: 2},
		{args: "$admin --ca-url $EVIL $mike", code: 2},
		{args: "$admin --ca-url https://$EVIL $mike", code: 2},
		{args: "$admin --fingerprint $EVIL $mike", code: 2},
		{args: "$admin --format $EVIL $mike", code: 2},
		{args: "$admin --timeout $EVIL $mike", code: 2},
		{args: "$admin --offline=$EVIL $mike", code: 2},
		{args: "$admin --$EVIL $mike", code: 2},
		{args: "$admin -$EVIL=1 $mike", code: 2},
		{args: "--token $EVIL $mike", code: 2},
		{args: "--token $EVIL_TOKEN $mike", code: 2},
		// Names of provisioners, which a choice shows too.
		{args: "--provisioner $EVIL --password-file ca/provisioner-password --dry-run $mike"},
		{args: "--provisioner $EVIL --password-file ca/provisioner-password --dry-run --format json $mike", data: true},
		{args: "--provisioner people$EVIL --password-file ca/provisioner-password $mike", code: 1},
		{args: "--password-file ca/provisioner-password $mike", code: 2, question: "Which provisioner", keys: "2\r"},
		{args: "--provisioner $EVIL $mike", code: 2, question: "to decrypt", keys: "\x03"},
		// What a CA answers.
		{args: "$admin --ca-url $fake --root fake.crt $mike", code: 1},
		{args: "--token-file good.token --ca-url $fake --root fake.crt $mike", code: 1},
		{args: "--token-file good.token --ca-url $fake --root fake.crt --format json $mike", code: 1, data: true},
		{args: "--token-file good.token --ca-url $fake --root fake.crt --reason page $mike", code: 1},
		{args: "--token-file good.token --ca-url $fake --root fake.crt --reason status $mike", code: 1},
		{args: "--token-file good.token --ca-url $fake --root fake.crt --reason redirect $mike", code: 1},
		{args: "$admin --ca-url $fake --fingerprint $ca_fingerprint $mike", code: 1},
		{args: "--cert evil.crt --key evil.key --ca-url $fake --root fake.crt", code: 1},
	},
	"offline": {
		{args: "--offline $admin --ca-config $EVIL $mike", code: 2},
		{args: "--offline $admin --ca-config $EVIL_FILE $mike", code: 2},
		{args: "--offline $admin --ca-password-file $EVIL $mike", code: 2},
		{args: "--offline $admin --ca-password-file $EVIL_FILE $mike", code: 2},
		{args: "--offline $admin --ca-password-file ca/password --cert evil.crt --allow-unknown"},
		{args: "--offline $admin --dry-run --ca-password-file ca/password --cert evil.crt --allow-unknown"},
		{args: "--offline --provisioner $EVIL --password-file ca/provisioner-password --ca-password-file ca/password --format json $mike", data: true},
	},
}

// A way to run the program, which decides on what may be shown.
type way struct {
	name     string
	terminal bool
	env      []string
	colored  bool
}

var ways = []way{
	{"piped", false, []string{"TERM=xterm", "STEPDEBUG=1"}, false},
	{"no-color", true, []string{"TERM=xterm", "NO_COLOR=1", "STEPDEBUG=1"}, false},
	{"dumb", true, []string{"TERM=dumb"}, false},
	{"terminal", true, []string{"TERM=xterm", "STEPDEBUG=1"}, true},
}

// TestHostileNames shows whatever comes from outside, and looks for what a
// terminal would take for something else than text.
func TestHostileNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clean.txtar")
	if err := os.WriteFile(file, []byte(cleanScript), 0o600); err != nil {
		t.Fatal(err)
	}
	params := scriptParams("")
	params.Files = []string{file}
	params.Cmds["hostile-names"] = func(ts *testscript.TestScript, _ bool, _ []string) { makeHostile(ts) }
	params.Cmds["hostile-cases"] = func(ts *testscript.TestScript, _ bool, args []string) {
		t := ts.Value(scriptKey{}).(*script).t.(inTurn).T
		ts.Setenv("admin", "--provisioner admin --provisioner-password-file ca/provisioner-password")
		ts.Setenv("EVIL_FILE", hostileFile)
		ts.Setenv("EVIL_TOKEN", anyToken(ts, hostile))
		ts.Check(os.WriteFile(ts.MkAbs("good.token"), []byte(anyToken(ts, ts.Getenv("mike"))), 0o600))
		// The group returns when all of its parallel cases have.
		t.Run(args[0], func(t *testing.T) {
			for i, c := range hostileCases[args[0]] {
				chosen := []way{ways[0], ways[1+i%3]} // all three with each would take long
				if c.question != "" {
					chosen = ways
				}
				for _, w := range chosen {
					t.Run(w.name+"/"+c.args, func(t *testing.T) {
						if args[0] == "online" { // the database is for one process
							t.Parallel()
						}
						c.run(t, ts, w)
					})
				}
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	testscript.RunT(inTurn{t}, params)
}

func (c hostileCase) run(t *testing.T, ts *testscript.TestScript, w way) {
	var args []string
	for arg := range strings.FieldsSeq(os.Expand(c.args, func(name string) string {
		if name == "admin" {
			return ts.Getenv(name)
		}
		return "${" + name + "}"
	})) {
		args = append(args, os.Expand(arg, func(name string) string {
			if name == "EVIL" {
				return hostile
			}
			return ts.Getenv(name)
		}))
	}
	cmd := exec.Command(ts.Getenv("plugin"), append(args, "--retry-for=0s")...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"HOME", "STEPPATH", "PATH", "TMPDIR", "GORACE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, w.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &stdout // JSON and tables go to a file as a rule
	var err error
	if w.terminal {
		err = c.runAtTerminal(cmd, &stderr)
	} else {
		cmd.Stderr = &stderr
		err = cmd.Run()
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != c.code && c.question == "" {
		t.Errorf("exit code %d, want %d", code, c.code)
	}
	if c.question != "" && w.terminal && !strings.Contains(stderr.String(), c.question) {
		t.Errorf("not asked: %q", c.question)
	}
	shown := strings.ReplaceAll(stderr.String(), "\r\n", "\n") // as a terminal does
	checkClean(t, "standard output", stdout.String(), false)
	checkClean(t, "standard error", shown, w.colored)
	if c.data {
		checkData(t, stdout.String())
	}
	if t.Failed() {
		t.Logf("standard error:\n%q\nstandard output:\n%q", &stderr, &stdout)
	}
}

// runAtTerminal runs a program at a pseudo-terminal and collects what is shown
// there, as it is.
func (c hostileCase) runAtTerminal(cmd *exec.Cmd, shown *bytes.Buffer) error {
	control, tty, err := pty.Open()
	if err != nil {
		return err
	}
	defer control.Close()
	if err := pty.Setsize(control, &pty.Winsize{Rows: 50, Cols: 400}); err != nil {
		return err
	}
	cmd.Stdin, cmd.Stderr = tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	tty.Close()
	defer time.AfterFunc(tooLong, func() { _ = cmd.Process.Kill() }).Stop()
	keys := c.keys
	for buffer := make([]byte, 4096); ; {
		n, err := control.Read(buffer)
		shown.Write(buffer[:n])
		if keys != "" && strings.Contains(shown.String(), c.question) {
			if _, err := io.WriteString(control, keys); err != nil {
				return err
			}
			keys = ""
		}
		if err != nil {
			return cmd.Wait()
		}
	}
}

// checkClean looks for what is not text. Where there may be colours they are
// ours, but nothing of the hostile name is.
func checkClean(t *testing.T, where, shown string, colored bool) {
	for _, part := range []string{"\x1b[31mx", "x\x1b[31m", "\x1b]0;", "title\x07", "\nPWNED", "\rPWNED", "PWNED2", "\u202e", "\u2066", "\u200f", "\u009b", "\u2028", "\u0085"} {
		if strings.Contains(shown, part) {
			t.Errorf("%s has %q in it", where, part)
		}
	}
	if colored {
		return
	}
	for _, r := range shown {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s has %q in it", where, r)
			return
		}
	}
}

// checkData makes sure that JSON is JSON, on one line, and keeps the data.
func checkData(t *testing.T, output string) {
	if strings.Count(output, "\n") != 1 || !strings.HasSuffix(output, "\n") {
		t.Errorf("this is not one line: %q", output)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(output), &object); err != nil {
		t.Errorf("this is not JSON: %v", err)
	}
	for _, name := range []string{"reason", "subject", "authorizedBy", "error"} {
		if text, _ := object[name].(string); strings.Contains(text, hostile) || strings.Contains(text, fmt.Sprintf("%q", hostile)) {
			return
		}
	}
	if sans, ok := object["sans"].([]any); ok && fmt.Sprint(sans) == fmt.Sprint([]string{hostileSAN, hostileSAN}) {
		return
	}
	t.Errorf("the data are lost: %q", object)
}

const hostileFile = "file " + hostile

// hostileSAN is what of the hostile name fits a subject alternative name.
var hostileSAN = strings.Map(func(r rune) rune {
	if r > unicode.MaxASCII {
		return -1
	}
	return r
}, hostile)

// makeHostile makes certificates, files, provisioners and a CA with the hostile
// name.
func makeHostile(ts *testscript.TestScript) {
	f := &fixtures{ts: ts}
	caCert, err := certificateIn(ts.MkAbs("ca/certs/intermediate_ca.crt"))
	ts.Check(err)
	caKey, err := pemutil.Read(ts.MkAbs("ca/secrets/intermediate_ca_key"), pemutil.WithPasswordFile(ts.MkAbs("ca/password")))
	ts.Check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(time.Now().UnixNano()), 60), Subject: pkix.Name{CommonName: hostile, Organization: []string{hostile}},
		DNSNames: []string{hostileSAN}, EmailAddresses: []string{hostileSAN}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	evil, err := x509.CreateCertificate(rand.Reader, template, caCert, key.Public(), caKey)
	ts.Check(err)
	f.writePEM("evil.crt", "CERTIFICATE", evil)
	f.writePEM(hostileFile, "CERTIFICATE", evil)
	foreign, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	f.writePEM("foreign.crt", "CERTIFICATE", foreign)
	template.IsCA, template.BasicConstraintsValid = true, true
	authority, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	f.writePEM("ca.crt", "CERTIFICATE", authority)
	f.write("type.pem", []byte(strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "TYPE", Bytes: evil})), "TYPE", "\x1b[31m\u202e")))
	der, err := x509.MarshalECPrivateKey(key)
	ts.Check(err)
	f.writePEM("evil.key", "EC PRIVATE KEY", der)
	block, err := pemutil.Serialize(key, pemutil.WithPassword([]byte("secret")))
	ts.Check(err)
	f.write("encrypted.key", pem.EncodeToMemory(block))

	var config map[string]any
	ts.Check(readJSON(ts.MkAbs("ca/config/ca.json"), &config))
	admin := config["authority"].(map[string]any)["provisioners"].([]any)[0].(map[string]any)
	admin["name"] = hostile
	people := map[string]any{"type": "ACME", "name": "people" + hostile}
	content, err := json.Marshal(map[string]any{"authority": map[string]any{"provisioners": []any{admin, people}}})
	ts.Check(err)
	f.write("provisioners.json", content)

	server := httptest.NewTLSServer(http.HandlerFunc(answerHostile))
	ts.Defer(server.Close)
	f.writePEM("fake.crt", "CERTIFICATE", server.Certificate().Raw)
	ts.Setenv("fake", server.URL)
}

// anyToken is a token that nobody would accept.
func anyToken(ts *testscript.TestScript, subject string) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(rand.Text() + rand.Text())}, nil)
	ts.Check(err)
	raw, err := jose.Signed(signer).Claims(map[string]any{"sub": subject, "iss": hostile, "aud": "https://ca.example.com/1.0/revoke"}).CompactSerialize()
	ts.Check(err)
	return raw
}

// answerHostile is a CA that answers with the hostile name; the reason of a
// revocation says where to put it.
func answerHostile(w http.ResponseWriter, r *http.Request) {
	var request struct{ Reason string }
	_ = json.NewDecoder(r.Body).Decode(&request)
	w.Header().Set("X-Request-Id", hostile)
	switch request.Reason {
	case "page":
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintln(w, "<html>"+hostile)
	case "status":
		_ = json.NewEncoder(w).Encode(map[string]string{"status": hostile})
	case "redirect":
		w.Header().Set("Location", hostile)
		w.WriteHeader(http.StatusFound)
	default:
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": 400, "message": hostile})
	}
}
