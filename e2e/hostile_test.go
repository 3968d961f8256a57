//go:build unix

package e2e

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// hostile is a name that would change what a person sees, if it were shown as
// it is: colours, a window's title, a line of its own, text from right to left,
// a template of package ui, fillers that look like nothing. All that comes from
// outside has it.
const hostile = "x\x1b[31m\x1b]0;title\x07\r\nPWNED: \u202eabc\u2066\u200f\u009b31m\u2028\u0085\u200b\ufeff\x7f{{ \"PWN\" }}{{ \"ED2\" }}\b\u3164\ufe0f\u2800\u05d0\u0661"

const hostileScript = `
ca init crl
hostile-names
amend provisioners.json
ca start
issue mike
hostile-cases online
ca stop
hostile-cases offline
`

// A hostileCase is a command line with $EVIL for the hostile name. It and the
// other variables whose names begin with EVIL stay one word.
type hostileCase struct {
	args     string
	env      string // a variable
	code     int
	data     bool   // the output is JSON, with the hostile name in it
	dialogue string // at a terminal
	answered int    // the exit code after the dialogue
	first    bool   // before any other case has revoked the certificate
}

var hostileCases = map[string][]hostileCase{
	"online": {
		// Certificates.
		{args: "$admin --dry-run --cert evil.crt"},
		{args: "$admin --dry-run --cert evil.crt --format json", data: true},
		{args: "$admin --dry-run --verify --cert evil.crt", code: 1, first: true},
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
		{args: "--provisioner admin --provisioner-password-file ca/password --cert $EVIL_FILE", code: 2},
		{args: "$admin --dry-run --cert $EVIL_FILE"},
		{args: "--provisioner admin --provisioner-password-file $EVIL_FILE $mike", code: 2},
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
		// What is on record.
		{args: "$admin --where subject=mike --dry-run", code: 1},
		{args: "$admin --allow-unknown --where subject=$EVIL --dry-run"},
		{args: "$admin --allow-unknown --where provisioner=$EVIL --dry-run --format json", data: true},
		{args: "$admin --allow-unknown --where subject=$EVIL --where provisioner=$EVIL", code: 2, dialogue: "? Revoke 1 certificate\n= \"n\\r\"\n", answered: 1},
		{args: "$admin --where $EVIL", code: 2},
		{args: "$admin --where san=$EVIL", code: 2},
		{args: "$admin --where key=$EVIL", code: 2},
		{args: "$admin --where issued-after=$EVIL", code: 2},
		{args: "$admin --where subject=mike --ca-config $EVIL", code: 2},
		// Names of provisioners, which a choice shows too.
		{args: "--provisioner $EVIL --password-file ca/provisioner-password --dry-run $mike"},
		{args: "--provisioner $EVIL --password-file ca/provisioner-password --dry-run --format json $mike", data: true},
		{args: "--provisioner people$EVIL --password-file ca/provisioner-password $mike", code: 1},
		{args: "--password-file ca/provisioner-password $mike", code: 2, dialogue: "? Which provisioner\n= \"2\\r\"\n"},
		{args: "--provisioner $EVIL $mike", code: 2, dialogue: "? to decrypt\n= \"\\x03\"\n", answered: 130},
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
		{args: "--offline --ca-password-file ca/password --dry-run $mike", env: "SUDO_USER=" + hostile},
		{args: "--offline --ca-password-file ca/password --dry-run --format json $mike", env: "SUDO_USER=" + hostile},
		{args: "--offline $admin --ca-config $EVIL $mike", code: 2},
		{args: "--offline $admin --ca-config $EVIL_FILE $mike", code: 2},
		{args: "--offline $admin --ca-password-file $EVIL $mike", code: 2},
		{args: "--offline $admin --ca-password-file $EVIL_FILE $mike", code: 2},
		{args: "--offline $admin --ca-password-file ca/password --cert evil.crt --allow-unknown"},
		{args: "--offline $admin --dry-run --ca-password-file ca/password --cert evil.crt --allow-unknown"},
		{args: "--offline --provisioner $EVIL --password-file ca/provisioner-password --ca-password-file ca/password --format json $mike", data: true},
		{args: "--offline $admin --dry-run --ca-password-file ca/password --allow-unknown --where subject=$EVIL"},
		{args: "--offline $admin --dry-run --ca-password-file ca/password --where subject=mike", code: 1},
	},
}

// A way is where the plugin runs; it decides what may be shown.
type way struct {
	name     string
	terminal bool
	env      []string
	colored  bool
}

var ways = []way{
	{name: "piped", env: []string{"STEPDEBUG=1"}},
	{name: "no-color", terminal: true, env: []string{"NO_COLOR=1", "STEPDEBUG=1"}},
	{name: "dumb", terminal: true, env: []string{"TERM=dumb"}},
	{name: "terminal", terminal: true, env: []string{"STEPDEBUG=1"}, colored: true},
}

// TestHostileNames has the plugin show everything that comes from outside, and
// makes sure that a terminal would take it for text.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	runSession(t, hostileScript, map[string]func(*testscript.TestScript, []string){
		"hostile-names": func(ts *testscript.TestScript, _ []string) { makeHostile(&fixtures{TestScript: ts}) },
		"hostile-cases": func(ts *testscript.TestScript, args []string) {
			makeHostileTokens(&fixtures{TestScript: ts})
			// The group returns when all of its parallel cases have.
			t.Run(args[0], func(t *testing.T) { runHostileCases(t, ts, args[0]) })
		},
	})
}

func runHostileCases(t *testing.T, ts *testscript.TestScript, group string) {
	for i, c := range hostileCases[group] {
		chosen := []way{ways[0], ways[1+i%3]} // all three with each would take long
		if c.dialogue != "" {
			chosen = ways
		}
		for _, w := range chosen {
			t.Run(w.name+"/"+c.args, func(t *testing.T) {
				if group == "online" && !c.first { // the database is for one process
					t.Parallel()
				}
				c.run(t, ts, w)
			})
		}
	}
}

func (c hostileCase) run(t *testing.T, ts *testscript.TestScript, w way) {
	variable := scriptVariable(t, ts)
	args := words(c.args, func(name string) string {
		if strings.HasPrefix(name, "EVIL") {
			return "${" + name + "}"
		}
		return variable(name)
	})
	for i, arg := range args {
		args[i] = os.Expand(arg, variable)
	}
	run, want := invocation{args: append(args, "--retry-for=0s"), env: w.env, terminal: w.terminal}, c.code
	if c.env != "" {
		run.env = append(slices.Clone(w.env), c.env)
	}
	if w.terminal && c.dialogue != "" {
		run.dialogue, want = c.dialogue, c.answered
	}
	got := run.run(t, ts)
	if got.code != want {
		t.Errorf("exit code %d, want %d", got.code, want)
	}
	shown := strings.ReplaceAll(got.stderr, "\r\n", "\n") // as a terminal does
	checkClean(t, "standard output", got.stdout, false)
	checkClean(t, "standard error", shown, w.colored)
	if c.data {
		checkData(t, got.stdout)
	}
	if t.Failed() {
		t.Logf("standard error:\n%q\nstandard output:\n%q", got.stderr, got.stdout)
	}
}

// checkClean makes sure that only text is shown: without colour nothing but
// printable characters, with colour at least nothing out of the hostile name.
func checkClean(t *testing.T, where, shown string, colored bool) {
	for _, part := range []string{"\x1b[31mx", "x\x1b[31m", "\x1b]0;", "title\x07", "\nPWNED", "\rPWNED", "PWNED2", "\u202e", "\u2066", "\u200f", "\u009b", "\u2028", "\u0085", "\u3164", "\ufe0f", "\u2800", "\u05d0", "\u0661"} {
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

// hostileSAN is the hostile name as a subject alternative name, in ASCII.
var hostileSAN = strings.Map(func(r rune) rune {
	if r > unicode.MaxASCII {
		return -1
	}
	return r
}, hostile)

// makeHostile makes certificates, files, provisioners and a CA with the hostile
// name.
func makeHostile(f *fixtures) {
	f.hostileCertificates()
	config := f.config("ca")
	admin := provisionerOf(config, 0)
	admin["name"] = hostile
	people := map[string]any{"type": "ACME", "name": "people" + hostile}
	f.writeJSON("provisioners.json", map[string]any{"authority": map[string]any{"provisioners": []any{admin, people}}})

	server := httptest.NewTLSServer(http.HandlerFunc(answerHostile))
	f.Defer(server.Close)
	f.writePEM("fake.crt", "CERTIFICATE", server.Certificate().Raw)
	f.Setenv("fake", server.URL)
	f.Setenv("admin", "--provisioner admin --provisioner-password-file ca/provisioner-password")
	f.Setenv("EVIL", hostile)
	f.Setenv("EVIL_FILE", hostileFile)
}

func (f *fixtures) hostileCertificates() {
	key := f.newKey("evil.key")
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(time.Now().UnixNano()), 60), Subject: pkix.Name{CommonName: hostile, Organization: []string{hostile}},
		DNSNames: []string{hostileSAN}, EmailAddresses: []string{hostileSAN}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	evil := f.sign("evil.crt", template, f.certificate("ca/certs/intermediate_ca.crt"), key, f.issuerKey())
	f.writePEM(hostileFile, "CERTIFICATE", evil)
	f.hostileRecords(*template, key)
	f.write("type.pem", []byte(strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "TYPE", Bytes: evil})), "TYPE", "\x1b[31m\u202e")))
	f.sign("foreign.crt", template, template, key, key)
	template.IsCA, template.BasicConstraintsValid = true, true
	f.sign("ca.crt", template, template, key, key)
	block, err := pemutil.Serialize(key, pemutil.WithPassword([]byte("secret")))
	f.Check(err)
	f.write("encrypted.key", pem.EncodeToMemory(block))
}

// hostileRecords puts into the CA's database a certificate of a provisioner with the
// hostile name, and records under that name that are nothing.
func (f *fixtures) hostileRecords(template x509.Certificate, key crypto.Signer) {
	template.SerialNumber = new(big.Int).Add(template.SerialNumber, big.NewInt(1))
	der := f.sign("recorded.crt", &template, f.certificate("ca/certs/intermediate_ca.crt"), key, f.issuerKey())
	data, err := json.Marshal(map[string]any{"provisioner": map[string]string{"name": hostile}})
	f.Check(err)
	serial := template.SerialNumber.String()
	const stray = `{"Serial":"1","RevokedAt":"2020-01-01T00:00:00Z"}`
	f.Check(current(f.TestScript).put(map[string]string{
		"x509_certs/" + serial: string(der), "x509_certs_data/" + serial: string(data),
		"x509_certs/" + hostile: "nothing", "revoked_x509_certs/" + hostile: stray,
		"revoked_x509_certs/0x" + template.SerialNumber.Text(16): stray, "ssh_hosts": "",
	}))
}

// makeHostileTokens makes tokens that nobody would accept.
func makeHostileTokens(f *fixtures) {
	key := &jose.JSONWebKey{Key: []byte(rand.Text() + rand.Text()), Algorithm: jose.HS256}
	token := func(subject string) string {
		return f.token(key, time.Now(), map[string]any{"sub": subject, "iss": hostile, "aud": "https://ca.example.com/1.0/revoke"})
	}
	f.Setenv("EVIL_TOKEN", token(hostile))
	f.write("good.token", []byte(token(f.Getenv("mike"))))
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
