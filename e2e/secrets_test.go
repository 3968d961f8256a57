//go:build unix

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
)

// secretsScript is the session around the flows: every way to authorize, with
// success and without, online and offline.
const secretsScript = `
ca use other
ca start
ca use ca
ca init crl
exec step ca provisioner add hosts --type X5C --x5c-roots ca/certs/root_ca.crt
ca start
issue victim
issue friend --kty RSA
issue okp --kty OKP --crv Ed25519
exec step crypto change-pass victim.key --out encrypted.key --new-password-file ca/password
exec openssl rsa -in friend.key -aes256 -passout file:ca/password -out legacy.key
exec sh -c 'chmod 600 *.key; head -c 100 victim.key >garbage.key; head -c 50 encrypted.key >garbage-encrypted.key'
prepare-flows
run-flows online
ca stop
run-flows offline
`

// A flow is one run of the program.
type flow struct {
	args  string // separated by blanks, with the script's variables
	code  int
	stdin string // a file
	typed string // a dialogue, if it is run at a terminal
	env   string // a variable, with the script's variables
}

// flows have a fresh token in $TOKEN and in the file $FRESH. This token may be
// on the command line.
var flows = map[string][]flow{
	"online": {
		{args: "$admin $victim"},
		{args: "$admin --format json $victim"},
		{args: "$admin --verify --reason why $victim"},
		{args: "$admin --dry-run $victim"},
		{args: "$admin --cert victim.crt"},
		{args: "--provisioner admin --password-file /dev/stdin $victim", stdin: "ca/provisioner-password"},
		{args: "--provisioner admin --password-file ca/password $victim", code: 2},
		{args: "--provisioner nobody --password-file ca/password $victim", code: 1},
		{args: "--provisioner hosts --password-file ca/password $victim", code: 1},
		{args: "--password-file ca/provisioner-password --kid none $victim", code: 1},
		{args: "--provisioner-key admin.jwk $victim"},
		{args: "--provisioner-key /dev/stdin $victim", stdin: "admin.jwk"},
		{args: "--provisioner-key encrypted.jwk --password-file ca/provisioner-password $victim"},
		{args: "--provisioner-key encrypted.jwk --password-file ca/password $victim", code: 2},
		{args: "--provisioner-key encrypted.jwk $victim", code: 2},
		{args: "--provisioner-key garbage.key $victim", code: 2},
		{args: "--provisioner-key garbage.jwk $victim", code: 2},
		{args: "--provisioner-key broken.jwk $victim", code: 2},
		{args: "--provisioner-key victim.key $victim", code: 1},
		{args: "--provisioner-key ca/password $victim", code: 2},
		{args: "--token $TOKEN $victim"},
		{args: "--token $TOKEN $friend", code: 2},
		{args: "--token $TOKEN --fingerprint $other_fingerprint $victim", code: 1},
		{args: "--token-file $FRESH $victim"},
		{args: "--token-file $FRESH --format json $victim"},
		{args: "--token-file $FRESH --ca-url $down --root ca/certs/root_ca.crt $victim", code: 1},
		{args: "--token-file /dev/stdin $victim", stdin: "$FRESH"},
		{args: "--token-file used.token $victim", code: 1},
		{args: "--token-file wrong.token $victim", code: 1},
		{args: "--token-file garbage.token $victim", code: 2},
		{args: "--token-file encrypted.jwk $victim", code: 2},
		{args: "--token-file victim.key $victim", code: 2},
		{args: "--token-file ca/password $victim", code: 2},
		{args: "$victim", code: 2},
		// A secret where the name of a file with it belongs, or in the wrong file.
		{args: "--provisioner admin $victim", env: "STEP_PROVISIONER_PASSWORD_FILE=$password", code: 2},
		{args: "--provisioner-key encrypted.jwk $victim", env: "STEP_PROVISIONER_PASSWORD_FILE=$password", code: 2},
		{args: "--cert victim.crt --key encrypted.key", env: "STEP_KEY_PASSWORD_FILE=$password", code: 2},
		{args: "$x5c --x5c-key legacy.key --x5c-cert friend.crt $victim", env: "STEP_PROVISIONER_PASSWORD_FILE=$password", code: 2},
		{args: "$x5c --x5c-cert friend.crt $victim", env: "STEP_X5C_KEY=$password", code: 2},
		{args: "$victim", env: "STEP_PROVISIONER_KEY=$password", code: 2},
		{args: "$victim", env: "STEP_TOKEN_FILE=$password", code: 2},
		{args: "$victim", env: "STEP_TOKEN_FILE=$USED", code: 2},
		{args: "$victim", env: "STEP_TOKEN=$password", code: 2},
		{args: "$admin --force --from ca/password", code: 2},
		{args: "$admin --force --from hex-password", code: 2},
		{args: "$admin --force --from mixed-password", code: 2},
		{args: "$admin --force --from number-password", code: 2},
		{args: "$admin --force --from victim.key", code: 2},
		{args: "$admin --force --from key.txt", code: 2},
		{args: "$admin --force --from admin.jwk", code: 2},
		{args: "$admin --force --from used.token", code: 2},
		{args: "$admin --force --from -", stdin: "hex-password", code: 2},
		{args: "$admin --cert ca/password", code: 2},
		{args: "$admin --root ca/password $victim", code: 2},
		{args: "$admin --journal ca/password $victim", code: 2},
		{args: "--cert victim.crt --key key.txt", code: 2},
		{args: "--provisioner-key key.txt $victim", code: 2},
		{args: "--cert victim.crt --key encrypted.key --key-password-file ca/password"},
		{args: "--cert victim.crt --key encrypted.key --key-password-file /dev/stdin", stdin: "ca/password"},
		{args: "--cert victim.crt --key encrypted.key --key-password-file ca/provisioner-password", code: 2},
		{args: "--cert victim.crt --key encrypted.key", code: 2},
		{args: "--cert victim.crt --key victim.key --dry-run"},
		{args: "--cert friend.crt --key legacy.key --key-password-file ca/password"},
		{args: "--cert friend.crt --key legacy.key --key-password-file used.token", code: 2},
		{args: "--cert okp.crt --key okp.key"},
		{args: "--cert victim.crt --key friend.key", code: 2},
		{args: "--cert victim.crt --key garbage.key", code: 2},
		{args: "--cert victim.crt --key garbage-encrypted.key --key-password-file ca/password", code: 2},
		{args: "--cert victim.crt --key admin.jwk", code: 2},
		{args: "--cert victim.crt --key ca/password", code: 2},
		{args: "--cert victim.key --key victim.key", code: 2},
		{args: "--cert victim.crt --key victim.key --root other/certs/root_ca.crt", code: 1},
		{args: "--cert victim.crt --key victim.key --ca-url $down --root ca/certs/root_ca.crt", code: 1},
		{args: "$admin --root victim.key $victim", code: 2},
		{args: "$admin --fingerprint $other_fingerprint $victim", code: 1},
		{args: "$admin --ca-url $other_url --root other/certs/root_ca.crt $victim", code: 2},
		{args: "$admin --ca-url $down --root ca/certs/root_ca.crt $victim", code: 1},
		{args: "$x5c --x5c-key friend.key --x5c-cert friend.crt $victim"},
		{args: "$x5c --x5c-key legacy.key --x5c-cert friend.crt --password-file ca/password $victim"},
		{args: "$x5c --x5c-key legacy.key --x5c-cert friend.crt --password-file /dev/stdin $victim", stdin: "ca/password"},
		{args: "$x5c --x5c-key legacy.key --x5c-cert friend.crt --password-file ca/provisioner-password $victim", code: 2},
		{args: "$x5c --x5c-key victim.key --x5c-cert friend.crt $victim", code: 2},
		{args: "$x5c --x5c-key garbage.key --x5c-cert friend.crt $victim", code: 2},
		{args: "$x5c --x5c-key okp.key --x5c-cert okp.key $victim", code: 2},
		{args: "$x5c --x5c-key okp.key --x5c-cert okp.crt --x5c-chain friend.key $victim", code: 2},
		{args: "--provisioner admin $victim", typed: "? decrypt\n> wrong guess\n? wrong\n? decrypt\n< ca/provisioner-password\n"},
		{args: "--provisioner admin $victim", typed: "? decrypt\n< ca/password\n? wrong\n? decrypt\n= \"\\x03\"\n", code: 130},
		{args: "--cert victim.crt --key encrypted.key", typed: "? decrypt\n< ca/password\n"},
		{args: "--cert victim.crt --key encrypted.key", typed: "? decrypt\n< ca/provisioner-password\n? wrong\n? decrypt\n< ca/password\n"},
		{args: "--cert victim.crt --key encrypted.key", typed: strings.Repeat("? decrypt\n< ca/provisioner-password\n? wrong\n", 3), code: 2},
		{args: "$x5c --x5c-key legacy.key --x5c-cert friend.crt $victim", typed: "? decrypt\n< ca/password\n"},
	},
	"offline": {
		{args: "--offline $admin --ca-password-file ca/password $victim"},
		{args: "--offline $admin --ca-password-file ca/password --verify --format json $victim"},
		{args: "--offline $admin --ca-password-file /dev/stdin $victim", stdin: "ca/password"},
		{args: "--offline $admin --ca-password-file ca/password --dry-run $victim"},
		{args: "--offline $admin --ca-password-file ca/provisioner-password $victim", code: 2},
		{args: "--offline $admin $victim", code: 4},
		{args: "--offline --provisioner admin --password-file ca/password $victim", code: 2},
		{args: "--offline --provisioner-key admin.jwk --ca-password-file ca/password $victim"},
		{args: "--offline --cert victim.crt --key encrypted.key --key-password-file ca/password --ca-password-file ca/password"},
		{args: "--offline --cert victim.crt --key encrypted.key --key-password-file used.token", code: 2},
		{args: "--offline $x5c --x5c-cert friend.crt --x5c-key legacy.key --password-file ca/password --ca-password-file ca/password $victim"},
		{args: "--offline $x5c --x5c-cert friend.crt --x5c-key friend.key --ca-password-file ca/provisioner-password $victim", code: 2},
		{args: "--offline --ca-config with-password.json $admin $victim"},
		{args: "--offline --ca-config wrong-password.json $admin $victim", code: 4},
		{args: "--offline --ca-config victim.key $admin $victim", code: 2},
		{args: "--offline --ca-config no-db.json $admin $victim", code: 2},
		{args: "--offline --ca-config ca/password $admin $victim", code: 2},
		{args: "--offline --ca-config hex-password $admin $victim", code: 2},
		{args: "--offline --ca-config wrong-types.json $admin $victim", code: 2},
		{args: "--offline $admin $victim", env: "STEP_CA_PASSWORD_FILE=$password", code: 2},
		{args: "--offline $admin $victim", typed: "? CA's key\n< ca/provisioner-password\n? wrong\n? CA's key\n< ca/password\n"},
	},
}

// TestSecrets runs every flow as step's plugin and alone, one of them with
// STEPDEBUG=1, and looks for each secret in all output and in the command lines
// of all processes.
func TestSecrets(t *testing.T) {
	t.Parallel()
	f := &flowFixtures{watch: watch{seen: map[int]map[string]bool{}}}
	go f.watch.run(t.Context())
	runSession(t, secretsScript, map[string]func(*testscript.TestScript, []string){
		"prepare-flows": func(ts *testscript.TestScript, _ []string) { f.prepare(ts) },
		"run-flows": func(ts *testscript.TestScript, args []string) {
			// The group returns when all of its parallel flows have.
			t.Run(args[0], func(t *testing.T) { f.runAll(t, args[0]) })
			if f.watched.Load() == 0 {
				t.Error("no command line was seen")
			}
		},
	})
}

type flowFixtures struct {
	fixtures
	admin   *jose.JSONWebKey
	watch   watch
	watched atomic.Int32 // runs whose command lines were seen
}

func (f *flowFixtures) prepare(ts *testscript.TestScript) {
	f.fixtures = fixtures{TestScript: ts, secret: secrets{}}
	for _, name := range []string{"ca/password", "ca/provisioner-password"} {
		f.secret.add(strings.TrimSpace(ts.ReadFile(name)))
	}
	for _, name := range []string{"victim.key", "friend.key", "okp.key"} {
		f.addKey(f.key(name))
	}
	f.addKey(f.issuerKey())
	f.admin = f.adminKey("ca")
	f.addKey(f.admin.Key)
	f.provisionerKeys()
	f.passwords()
	f.configurations()
	f.write("used.token", []byte(f.revokeToken("admin")))
	f.write("wrong.token", []byte(f.revokeToken("nobody")))
	f.write("garbage.token", []byte(f.revokeToken("admin")[20:]))
	ts.Check(ts.Exec("step-revoke-plugin", "--token-file", "used.token", ts.Getenv("victim")))
	ts.Setenv("admin", "--provisioner admin --provisioner-password-file ca/provisioner-password")
	ts.Setenv("x5c", "--provisioner hosts")
	ts.Setenv("down", "https://"+freeAddress())
}

// provisionerKeys writes the key of the provisioner admin, right and wrong.
func (f *flowFixtures) provisionerKeys() {
	plain := f.ReadFile("ca/provisioner-key")
	f.write("admin.jwk", []byte(plain))
	f.write("garbage.jwk", []byte(plain[:len(plain)-5]))
	f.write("encrypted.jwk", []byte(provisionerOf(f.config("ca"), 0)["encryptedKey"].(string)))
	var broken map[string]any
	f.Check(json.Unmarshal([]byte(plain), &broken))
	broken["x"] = broken["y"] // not on the curve
	f.writeJSON("broken.jwk", broken)
}

// passwords writes secrets that a list of serial numbers could be taken for.
func (f *flowFixtures) passwords() {
	f.Setenv("password", strings.TrimSpace(f.ReadFile("ca/password")))
	random := []byte(rand.Text() + rand.Text())
	hexadecimal := "a" + hex.EncodeToString(random[:16])[1:] // as openssl rand -hex 16 prints it; not all of it decimal
	mixed := new(big.Int).SetBytes(random[:16]).String() + "x"
	for name, password := range map[string]string{"hex-password": hexadecimal, "mixed-password": mixed, "number-password": "-" + mixed[1:12]} {
		f.secret.add(password)
		f.write(name, []byte(password+"\n"))
	}
	text, err := exec.Command("openssl", "pkey", "-in", f.MkAbs("victim.key"), "-text", "-noout").Output()
	f.Check(err)
	f.write("key.txt", text)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.Count(line, ":") > 3 {
			f.secret.add(line)
		}
	}
}

// configurations makes variants of the CA's ca.json.
func (f *flowFixtures) configurations() {
	for name, change := range map[string]func(config map[string]any){
		"with-password": func(config map[string]any) { config["password"] = strings.TrimSpace(f.ReadFile("ca/password")) },
		"wrong-password": func(config map[string]any) {
			config["password"] = strings.TrimSpace(f.ReadFile("ca/provisioner-password"))
		},
		"no-db": func(config map[string]any) { delete(config, "db") },
		"wrong-types": func(config map[string]any) {
			config["password"] = []string{strings.TrimSpace(f.ReadFile("ca/password"))}
		},
	} {
		config := f.config("ca")
		change(config)
		f.writeJSON(name+".json", config)
	}
}

// revokeToken makes a token for the certificate victim that is a secret from
// now on.
func (f *flowFixtures) revokeToken(issuer string) string {
	raw := f.token(f.admin, time.Now(), map[string]any{
		"iss": issuer, "sub": f.Getenv("victim"), "aud": f.Getenv("ca_url") + "/1.0/revoke",
	})
	_, secret, _ := strings.Cut(raw, ".") // the header is the same in all of them
	f.secret.add(secret)
	return raw
}

// addKey adds a private key in every encoding.
func (f *flowFixtures) addKey(key any) {
	var numbers [][]byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		f.Check(err)
		numbers = append(numbers, d)
	case *rsa.PrivateKey:
		numbers = append(numbers, k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes())
	case ed25519.PrivateKey:
		numbers = append(numbers, k.Seed())
	default:
		f.Fatalf("a key of type %T", key)
	}
	for _, n := range numbers {
		list := make([]string, len(n))
		for i, b := range n {
			list[i] = strconv.Itoa(int(b))
		}
		for _, secret := range []string{
			string(n), hex.EncodeToString(n), strings.ToUpper(hex.EncodeToString(n)), fmt.Sprintf("% x", n), new(big.Int).SetBytes(n).String(),
			base64.StdEncoding.EncodeToString(n), base64.URLEncoding.EncodeToString(n), strings.Join(list, " "),
		} {
			f.secret.add(secret)
		}
	}
	// In a file the numbers may start anywhere in a group of base64.
	der, err := x509.MarshalPKCS8PrivateKey(key)
	f.Check(err)
	for _, n := range numbers {
		for shift := range 3 {
			f.secret.add(base64.StdEncoding.EncodeToString(append(make([]byte, shift), n...))[4*shift:])
		}
	}
	if i := bytes.Index(der, numbers[0]); i < 0 {
		f.Fatalf("the key is not in its own encoding")
	}
}

func (f *flowFixtures) runAll(t *testing.T, group string) {
	for i, c := range flows[group] {
		for j, program := range []string{"step-revoke-plugin", "step"} {
			run, fresh := invocation{asStep: program == "step"}, f.revokeToken("admin")
			if (i+j)%2 == 0 {
				run.env = []string{"STEPDEBUG=1"}
			}
			t.Run(fmt.Sprintf("%s/%s/%s/%q", program, c.args, c.env, run.env), func(t *testing.T) {
				if group == "online" { // the database is for one process
					t.Parallel()
				}
				f.run(t, c, run, fresh)
			})
		}
	}
}

// run runs a flow with a fresh token, and looks for secrets.
func (f *flowFixtures) run(t *testing.T, c flow, run invocation, fresh string) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(fresh+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	variable := scriptVariable(t, f.TestScript)
	run.args = append(words(c.args, func(name string) string {
		switch name {
		case "TOKEN":
			return fresh
		case "FRESH":
			return token
		}
		return variable(name)
	}), "--retry-for", "0s")
	switch c.stdin {
	case "":
	case "$FRESH":
		run.stdin = fresh
	default:
		run.stdin = f.ReadFile(c.stdin)
	}
	if c.env != "" {
		run.env = append(run.env, os.Expand(c.env, func(name string) string {
			if name == "USED" {
				return strings.TrimSpace(f.ReadFile("used.token"))
			}
			return variable(name)
		}))
	}
	run.terminal = c.typed != ""
	run.dialogue = strings.ReplaceAll(c.typed, "< ", "< "+f.Getenv("WORK")+"/")

	started := run.start(t, f.TestScript)
	session := started.cmd.Process.Pid
	f.watch.add(session)
	got := started.result()
	processes := f.watch.remove(session)
	output := got.stdout + got.stderr
	if got.code != c.code {
		t.Errorf("exit code %d, want %d\n%s", got.code, c.code, output)
	}
	if f.secret.in(output) || f.secret.in(got.screen) {
		t.Errorf("the output holds a part of a secret:\n%s", output)
	}
	if strings.Contains(processes, "step-revoke-plugin\x00--") {
		f.watched.Add(1)
	}
	if f.secret.in(strings.ReplaceAll(processes, fresh, "")) {
		t.Errorf("a command line holds a part of a secret:\n%q", processes)
	}
}

// A watch collects the command lines of the processes of sessions, which the
// programs that are started in one stay in.
type watch struct {
	mu   sync.Mutex
	seen map[int]map[string]bool // by session
}

func (w *watch) add(session int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[session] = map[string]bool{}
}

// remove returns the command lines of a session that has ended.
func (w *watch) remove(session int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.seen[session]
	delete(w.seen, session)
	return strings.Join(slices.Collect(maps.Keys(lines)), "\n")
}

// run looks at the processes every 10 ms until the context ends.
func (w *watch) run(ctx context.Context) {
	for ticks := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-ticks.C {
		w.mu.Lock()
		w.look()
		w.mu.Unlock()
	}
}

// look looks at all processes that are younger than the oldest session.
func (w *watch) look() {
	oldest := math.MaxInt
	for session := range w.seen {
		oldest = min(oldest, session)
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err != nil || pid < oldest {
			continue
		}
		stat, err := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// State, parent, group and session follow the name (proc(5)).
		session, _ := strconv.Atoi(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[3])
		if seen := w.seen[session]; seen != nil {
			line, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
			seen[string(line)] = true
		}
	}
}
