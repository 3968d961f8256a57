//go:build unix

package e2e

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// badInputFile is a table; the comment at its top explains it.
const badInputFile = "testdata/bad-input.txt"

var updateBadInput = flag.Bool("update", false, "rewrite "+badInputFile+" with what the program does")

// badInputScript is the session around the table. It sets up two CAs and shows
// that no block has changed their databases, although the right command does
// revoke the same certificate.
const badInputScript = `
# A CA with a used token, which is wrong in nothing else.
ca use other
ca init
exec sed -i.orig 's/"authority": {/"authority": {"disableIssuedAtCheck": true,/' other/config/ca.json
ca start
issue stranger spent
env STEPPATH=$WORK/other
exec step ca token --provisioner-password-file other/provisioner-password --output-file used.token --revoke $spent
exits 0 step-revoke-plugin --token-file used.token $spent
env STEPPATH=$WORK/ca
snapshot

# The CA of the certificates that no block revokes.
ca use ca
ca init
exec step ca provisioner add ops --type JWK --create --password-file ca/password
exec step ca provisioner add web --type ACME
exec step ca provisioner add hosts --type X5C --x5c-roots ca/certs/root_ca.crt
ca start
issue victim friend
exec step crypto change-pass victim.key --out encrypted.key --new-password-file ca/password
chmod 0600 encrypted.key
ca stop
snapshot
exec cp -R ca/db stopped.db
ca start

bad-input
! exists conf/gone conf/empty/MANIFEST
unchanged
exits 0 step-revoke-plugin --provisioner admin --password-file ca/provisioner-password $victim
ca stop
recorded $victim
ca use other
ca stop
unchanged
`

// TestBadInput runs every block of the table, in parallel, and compares all
// that the program says, and its exit code.
func TestBadInput(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile(badInputFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(table), "\n")
	blocks, err := parseBadInputs(lines)
	if err != nil {
		t.Fatalf("%s:%v", badInputFile, err)
	}
	runSession(t, badInputScript, map[string]func(*testscript.TestScript, []string){
		"bad-input": func(ts *testscript.TestScript, _ []string) {
			secret := makeBadInputs(ts)
			// The group returns when all of its parallel blocks have.
			t.Run("blocks", func(t *testing.T) {
				for _, b := range blocks {
					t.Run(b.args, func(t *testing.T) {
						t.Parallel()
						b.run(t, ts, secret, string(table))
					})
				}
			})
			checkCopies(ts)
		},
	})
	if *updateBadInput {
		if err := os.WriteFile(badInputFile, []byte(rewriteBadInputs(lines, blocks)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A badInput is a block of the table. All strings but env may hold variables of
// the script.
type badInput struct {
	args   string
	env    []string
	stdin  string
	code   int
	stderr string

	line     int // the number of its first line, from 1
	from, to int // its lines from exit on are lines[from:to]
}

// parseBadInputs reads the table. Its error begins with the number of a line.
func parseBadInputs(lines []string) (blocks []*badInput, err error) {
	b := &badInput{from: -1, to: -1}
	for i, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		switch head := b.from == i; {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case word == "$":
			b = &badInput{args: rest, line: i + 1, from: i + 1}
			blocks = append(blocks, b)
		case word == "env" && head:
			b.env = append(b.env, rest)
			b.from++
		case word == "stdin" && head:
			b.stdin += rest + "\n"
			b.from++
		case word == "exit" && head:
			if b.code, err = strconv.Atoi(rest); err != nil {
				return nil, fmt.Errorf("%d: %w", i+1, err)
			}
		case line[0] == '\t' && b.to == i && !head:
			b.stderr += line[1:] + "\n"
		default:
			return nil, fmt.Errorf("%d: %q is out of place", i+1, line)
		}
		b.to = i + 1
	}
	return blocks, nil
}

// rewriteBadInputs puts the exit codes and the errors of blocks into the table.
func rewriteBadInputs(lines []string, blocks []*badInput) string {
	var table []string
	at := 0
	for _, b := range blocks {
		table = append(append(table, lines[at:b.from]...), fmt.Sprint("exit ", b.code))
		for line := range strings.Lines(b.stderr) {
			table = append(table, "\t"+strings.TrimSuffix(line, "\n"))
		}
		at = b.to
	}
	return strings.Join(append(table, lines[at:]...), "\n")
}

// requestID is what the CA makes up for each answer.
var requestID = regexp.MustCompile(`request ID [0-9a-f-]+`)

func (b *badInput) run(t *testing.T, ts *testscript.TestScript, secret secrets, table string) {
	variable := scriptVariable(t, ts)
	got := invocation{args: words(b.args, variable), env: b.env, stdin: os.Expand(b.stdin, variable)}.run(t, ts)
	stderr := requestID.ReplaceAllString(got.stderr, "request ID …")
	if want := os.Expand(b.stderr, variable); *updateBadInput && (got.code != b.code || stderr != want) {
		b.code, b.stderr = got.code, unexpand(stderr, table, ts)
	}
	if got.code != b.code {
		t.Errorf("%s:%d: exit code %d, want %d", badInputFile, b.line, got.code, b.code)
	}
	if want := os.Expand(b.stderr, variable); stderr != want {
		t.Errorf("%s:%d: standard error is\n%swant\n%s", badInputFile, b.line, stderr, want)
	}
	if got.stdout != "" {
		t.Errorf("%s:%d: standard output is not empty: %q", badInputFile, b.line, got.stdout)
	}
	if secret.in(got.stdout + got.stderr) {
		t.Errorf("%s:%d: the output holds a part of a secret", badInputFile, b.line)
	}
}

// unexpand puts variables of the table where their values are in a text. Of two
// values at the same place the longer one counts.
func unexpand(text, table string, ts *testscript.TestScript) string {
	names := map[string]string{} // by value
	os.Expand(table, func(name string) string {
		names[ts.Getenv(name)] = "$" + name
		return ""
	})
	delete(names, "") // in a comment
	var pairs []string
	for _, value := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		pairs = append(pairs, value, names[value])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// databaseCopies are copies of the CA's database, each for the one block that
// opens it: a database is for one process.
var databaseCopies = []string{"unknown", "expired", "remote"}

// checkCopies makes sure that the copies of the CA's database are unchanged.
func checkCopies(ts *testscript.TestScript) {
	for _, name := range databaseCopies {
		now, err := readBadger(ts.MkAbs("conf/" + name + ".db"))
		ts.Check(err)
		if !maps.Equal(now, current(ts).saved) {
			ts.Fatalf("the copy %s of the CA's database has changed", name)
		}
	}
}

// makeBadInputs makes the files and variables of the table, and returns the
// secrets in them.
func makeBadInputs(ts *testscript.TestScript) secrets {
	f := &badInputFixtures{fixtures{TestScript: ts, secret: secrets{}}}
	f.passwords()
	f.certificates()
	f.provisionerKeys()
	f.tokens()
	f.servers()
	f.configurations()
	for name, value := range map[string]string{
		"admin":         "--provisioner admin --provisioner-password-file ca/provisioner-password",
		"types":         "--offline --ca-config conf/types.json --password-file ca/password",
		"twenty_octets": strings.Repeat("5a", 20),
		"digits":        strings.Repeat("7", 200),
	} {
		ts.Setenv(name, value)
	}
	return f.secret
}

type badInputFixtures struct{ fixtures }

func (f *badInputFixtures) passwords() {
	for _, name := range []string{"ca/password", "ca/provisioner-password", "other/password", "other/provisioner-password"} {
		f.secret.add(strings.TrimSpace(f.ReadFile(name)))
	}
	for _, name := range []string{"victim.key", "friend.key", "stranger.key", "encrypted.key"} {
		for line := range strings.Lines(f.ReadFile(name)) {
			if line = strings.TrimSpace(line); !strings.Contains(line, " ") { // a line of base64
				f.secret.add(line)
			}
		}
	}
	f.Setenv("password", strings.TrimSpace(f.ReadFile("ca/password")))
	f.write("blank", []byte(" \n"))
}

// certificates makes certificates that step-ca would not issue, and other PEM.
func (f *badInputFixtures) certificates() {
	issuer, issuerKey := f.certificate("ca/certs/intermediate_ca.crt"), f.issuerKey()
	now := time.Now().Truncate(time.Second)
	for name, start := range map[string]time.Time{"expired": now.Add(-2 * time.Hour), "future": now.Add(time.Hour), "forged": now} {
		key := f.newKey(name + ".key")
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		f.Check(err)
		template := &x509.Certificate{
			SerialNumber: serial.SetBit(serial, 127, 1), Subject: pkix.Name{CommonName: name},
			NotBefore: start, NotAfter: start.Add(time.Hour),
		}
		parent, signer := *issuer, issuerKey
		if name == "forged" {
			parent.PublicKey, signer = key.Public(), key
		}
		f.sign(name+".crt", template, &parent, key, signer)
		f.Setenv(name, serial.String())
	}
	f.Setenv("expired_at", now.Add(-time.Hour).UTC().Format(time.RFC3339))
	f.Setenv("future_at", now.Add(time.Hour).UTC().Format(time.RFC3339))

	victim := f.certificate("victim.crt")
	public, err := x509.MarshalPKIXPublicKey(victim.PublicKey)
	f.Check(err)
	f.writePEM("public.key", "PUBLIC KEY", public)
	f.writePEM("malformed.pem", "CERTIFICATE", victim.Raw[:100])
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: victim.Subject}, f.key("victim.key"))
	f.Check(err)
	f.writePEM("victim.csr", "CERTIFICATE REQUEST", csr)
}

// provisionerKeys writes the keys of provisioners in several forms.
func (f *badInputFixtures) provisionerKeys() {
	for name, ca := range map[string]string{"admin": "ca", "stranger": "other"} {
		content := f.ReadFile(ca + "/provisioner-key")
		f.write(name+".jwk", []byte(content))
		var private struct{ D string }
		f.Check(json.Unmarshal([]byte(content), &private))
		f.secret.add(private.D)
	}
	f.writeJSON("public.jwk", f.adminKey("ca").Public())
	config := f.config("ca")
	f.write("encrypted.jwk", []byte(provisionerOf(config, 0)["encryptedKey"].(string)))
	f.Setenv("ops_kid", provisionerOf(config, 1)["key"].(map[string]any)["kid"].(string))
}

// tokens makes tokens that are wrong in one thing each, and a good one.
func (f *badInputFixtures) tokens() {
	var (
		key    = f.adminKey("ca")
		victim = f.Getenv("victim")
		url    = f.Getenv("ca_url")
		revoke = url + "/1.0/revoke"
		sum    = f.Getenv("ca_fingerprint")
		now    = time.Now().Truncate(time.Second)
	)
	for name, token := range map[string]struct {
		subject, audience, sum string
		age                    time.Duration
	}{
		"token":           {victim, revoke, sum, 0},
		"hex_token":       {f.Getenv("victim_hex"), revoke, sum, 0},
		"sign_token":      {victim, url + "/1.0/sign", sum, 0},
		"ssh_token":       {victim, url + "/1.0/ssh/revoke", sum, 0},
		"nowhere_token":   {victim, url + "/elsewhere", sum, 0},
		"silent_token":    {victim, "", "", 0},
		"expired_token":   {victim, revoke, sum, time.Hour},
		"early_token":     {victim, revoke, sum, 3 * time.Minute},
		"bad_sum_token":   {victim, revoke, "5a3a", 0},
		"http_token":      {victim, "http://127.0.0.1/1.0/revoke", sum, 0},
		"other_token":     {victim, "https://ca.example.com/1.0/revoke", "", 0},
		"other_sum_token": {victim, f.Getenv("other_url") + "/1.0/revoke", f.Getenv("other_fingerprint"), 0},
	} {
		raw := f.token(key, now.Add(-token.age), map[string]any{"sub": token.subject, "aud": token.audience, "sha": token.sum})
		f.secret.add(raw)
		f.Setenv(name, raw)
	}
	f.Setenv("token_expired_at", now.Add(tokenLife-time.Hour).UTC().Format(time.RFC3339))
	f.write("good.token", []byte(f.Getenv("token")+"\n"))
	f.secret.add(f.ReadFile("used.token"))
}

// servers starts two servers that are no CAs, and finds an address without one.
func (f *badInputFixtures) servers() {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	plain, page := httptest.NewServer(hello), httptest.NewTLSServer(hello)
	f.Defer(plain.Close)
	f.Defer(page.Close)
	f.writePEM("page.crt", "CERTIFICATE", page.Certificate().Raw)
	f.Setenv("plain", strings.Replace(plain.URL, "http:", "https:", 1))
	f.Setenv("page", page.URL)
	address := freeAddress()
	f.Setenv("down_address", address)
	f.Setenv("down", "https://"+address)
	_, port, _ := strings.Cut(strings.TrimPrefix(f.Getenv("ca_url"), "https://"), ":")
	f.Setenv("port", port)
}

// configurations makes variants of the CA's ca.json, each of them unfit.
func (f *badInputFixtures) configurations() {
	type section = map[string]any
	dir := func(name string) string { return f.MkAbs("conf/" + name) }
	for name, change := range map[string]func(config, authority, db section){
		"crl":             func(config, _, _ section) { config["crl"] = section{"enabled": true} },
		"no-root":         func(config, _, _ section) { config["root"] = f.MkAbs("none") },
		"no-intermediate": func(config, _, _ section) { config["crt"] = f.MkAbs("none") },
		"no-db":           func(config, _, _ section) { delete(config, "db") },
		"no-authority":    func(config, _, _ section) { delete(config, "authority") },
		"invalid":         func(config, _, _ section) { clear(config) },
		"ra":              func(_, authority, _ section) { authority["type"] = "stepcas" },
		"linked":          func(_, authority, _ section) { authority["deploymentType"] = "linked" },
		"types":           func(_, authority, _ section) { authority["provisioners"] = f.oneOfEachType() },
		"db-gone":         func(_, _, db section) { db["dataSource"] = dir("gone") },
		"db-empty":        func(_, _, db section) { db["dataSource"] = dir("empty") },
		"db-foreign":      func(_, _, db section) { db["dataSource"] = f.MkAbs("ca/config") },
		"db-file":         func(_, _, db section) { db["dataSource"] = dir("garbage.json") },
		"bbolt-dir":       func(_, _, db section) { db["type"] = "bbolt" },
		"db-type":         func(_, _, db section) { db["type"] = "oracle" },
		"bbolt-empty":     func(_, _, db section) { db["type"], db["dataSource"] = "bbolt", dir("empty.db") },
		"bbolt-garbage":   func(_, _, db section) { db["type"], db["dataSource"] = "bbolt", dir("garbage.json") },
		"unknown":         func(_, _, db section) { db["dataSource"] = dir("unknown.db") },
		"expired":         func(_, _, db section) { db["dataSource"] = dir("expired.db") },
		"remote": func(_, authority, db section) {
			authority["enableAdmin"], db["dataSource"] = true, dir("remote.db")
		},
	} {
		config := f.config("ca")
		change(config, authorityOf(config), config["db"].(section))
		f.writeJSON("conf/"+name+".json", config)
	}
	f.write("conf/garbage.json", []byte("garbage\n"))
	f.write("conf/empty.db", nil)
	f.Check(os.Mkdir(dir("empty"), 0o700))
	for _, name := range databaseCopies {
		f.Check(os.CopyFS(dir(name+".db"), os.DirFS(f.MkAbs("stopped.db"))))
	}
}

// oneOfEachType returns a provisioner of each type that cannot authorize a
// revocation by name and password.
func (f *badInputFixtures) oneOfEachType() (all []map[string]any) {
	root := []byte(f.ReadFile("ca/certs/root_ca.crt"))
	for name, more := range map[string]map[string]any{
		"OIDC":   {"clientID": "id", "configurationEndpoint": "https://127.0.0.1:1"},
		"ACME":   nil,
		"X5C":    {"roots": root},
		"SSHPOP": nil,
		"K8sSA":  {"publicKeys": root},
		"AWS":    nil,
		"GCP":    nil,
		"Azure":  {"tenantId": "id"},
		"SCEP":   nil,
		"Nebula": {"roots": root},
	} {
		p := map[string]any{"type": name, "name": "a-" + strings.ToLower(name)}
		maps.Copy(p, more)
		all = append(all, p)
	}
	return all
}
