//go:build unix

package main

// The scripts in testdata/script are sessions of a user with the real step and
// step-ca, in the language of testscript (see its documentation) plus the
// commands below. A script starts without a controlling terminal, in $WORK,
// with HOME, PATH, TMPDIR and STEPPATH=$WORK/ca; PATH holds step, step-ca and
// the program under test, which is also $plugin ($tools is step and step-ca
// alone).
//
//	ca init [crl] [db=bbolt|none] [remote]
//	    Make a CA with step ca init: crl turns CRLs on, with a new one at each
//	    revocation; remote is remote management. Its directory is $WORK/ca, with
//	    the files password (of the CA's keys), provisioner-password (of the
//	    provisioner admin) and, without remote, provisioner-key (the key itself,
//	    which saves the time that passwords take). Sets $ca_url, $ca_fingerprint
//	    and $ca_kid.
//	ca start [options of init]
//	    Start step-ca and return when it serves; its log is $WORK/ca.log.
//	ca stop, ca restart
//	    Have step-ca shut down in good order, as before an offline revocation.
//	ca kill
//	    Kill step-ca.
//	ca use NAME
//	    Go on with another CA, in $WORK/NAME; its variables are $NAME_url, ….
//	issue NAME... [flags of step ca certificate]
//	    Issue NAME.crt with NAME.key; sets $NAME to its serial number, and
//	    $NAME_hex to the same in hexadecimal.
//	refused NAME..., renews NAME...
//	    The CA refuses to renew NAME.crt because it is revoked; it renews it.
//	[!] crl SERIAL [CODE]
//	    The CA's CRL, whose signature is verified, holds the serial number, with
//	    this reason code (0: without one). Of a stopped CA the one in its
//	    database counts, which nobody has renewed since.
//	[!] recorded SERIAL
//	    The CA's database holds a revocation; its JSON becomes stdout.
//	snapshot, unchanged
//	    Remember the CA's database; it is what it was (CRLs apart, which step-ca
//	    renews when it starts). Like recorded, they stop a running CA meanwhile,
//	    because its database can be read by one process only.
//	exits CODE PROGRAM [args...]
//	    Like exec, but the exit code must be this one.
//
// More of them are in databases_test.go, for connections that break in
// proxy_test.go, and for many certificates in mass_test.go.
//
// And one program, for dialogues at a terminal:
//
//	exits CODE at-terminal [-piped] DIALOGUE PROGRAM [args...]
//	    Run a program at a pseudo-terminal of its own, with that as its standard
//	    streams, or -piped with only /dev/tty left of it. Lines in the file
//	    DIALOGUE are "? REGEXP" (wait for it to appear), "> TEXT" (type it, with
//	    $VARIABLES, and press Enter), "< FILE" (type what a file holds, and press
//	    Enter), "= KEYS" (type exactly this quoted Go string), "! TERM" (send the
//	    signal) and "!! TERM" (send it to all that the program has started). What
//	    was on the terminal becomes stdout, without control characters.

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/dgraph-io/badger/v2"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// tooLong is when a wait for another process counts as failed: an upper bound
// that a loaded machine stays far below, not a delay.
const tooLong = time.Minute

// programs are what scripts can run besides commands: in processes of their own.
var programs = map[string]func(){
	"step-revoke-plugin": main,
	"at-terminal":        terminalMain,
	"half-written":       halfWrittenMain,
	"peak":               peakMain,
	"upon":               uponMain,
	"within":             withinMain,
}

func TestMain(m *testing.M) { testscript.Main(suite{m}, programs) }

// A suite runs the tests of the package, with a directory for what they share.
type suite struct{ *testing.M }

// suppressions are for the race detector: prompts are drawn by one goroutine
// of these libraries while another one reads the keys.
const suppressions = "race:github.com/manifoldco/promptui\nrace:github.com/chzyer/readline\n"

// sharedDir holds the tools and the CA templates of this test process.
var sharedDir string

func (s suite) Run() int {
	leaveTerminal()
	dir, err := os.MkdirTemp("", "step-revoke-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	sharedDir = dir
	if err := os.WriteFile(filepath.Join(dir, "suppressions"), []byte(suppressions), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stopServers()
	return s.M.Run()
}

// leaveTerminal gives up the controlling terminal, so that a script that must
// find none does not find that of the person who runs the tests. The process
// stays in its group: Ctrl-C still ends it.
func leaveTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	// To the leader of a session the kernel says goodbye with a SIGHUP.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	_ = unix.IoctlSetInt(int(tty.Fd()), unix.TIOCNOTTY, 0)
}

// tools returns a directory with the real step and step-ca: those that the
// variables STEP and STEP_CA name, or those that tools/go.mod pins.
var tools = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(sharedDir, "tools")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for name, variable := range map[string]string{"step": "STEP", "step-ca": "STEP_CA"} {
		path, err := toolPath(name, os.Getenv(variable))
		if err != nil {
			return "", err
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

func toolPath(name, given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	cmd := exec.Command("go", "tool", "-modfile=tools/go.mod", "-n", name)
	// Flags for building the plugin, like -mod or -race, do not fit the tools.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// scriptParams are the harness: the environment and the commands of scripts.
func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:   dir,
		Setup: setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ca":           cmdCA,
			"issue":        cmdIssue,
			"refused":      cmdRefused,
			"renews":       cmdRenews,
			"crl":          cmdCRL,
			"recorded":     cmdRecorded,
			"all-recorded": cmdAllRecorded,
			"memory":       cmdMemory,
			"snapshot":     cmdSnapshot,
			"unchanged":    cmdUnchanged,
			"exits":        cmdExits,
			"objects":      cmdObjects,
			"expired":      cmdExpired,

			"excerpt":   cmdExcerpt,
			"job":       cmdJob,
			"published": cmdPublished,

			"amend":      cmdAmend,
			"contacted":  cmdContacted,
			"crl-number": cmdCRLNumber,
			"foreign":    cmdForeign,
			"give":       cmdGive,
			"listen":     cmdListen,
			"query":      cmdQuery,

			"killed":    cmdKilled,
			"journaled": cmdJournaled,
			"lines":     cmdLines,
			"serials":   cmdSerials,

			"await":  cmdAwait,
			"faults": cmdFaults,
			"full":   cmdFull,
			"proxy":  cmdProxy,
			"relay":  cmdRelay,
		},
		Condition:          condition,
		RequireUniqueNames: true,
	}
}

func setupScript(env *testscript.Env) error {
	bin, err := tools()
	if err != nil {
		return err
	}
	plugin, err := exec.LookPath("step-revoke-plugin")
	if err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("STEPPATH", filepath.Join(env.WorkDir, "ca"))
	env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
	env.Setenv("tools", bin)
	env.Setenv("plugin", plugin)
	// Otherwise the race detector has each process sleep a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0 suppressions="+filepath.Join(sharedDir, "suppressions"))
	s := &script{
		env: []string{"HOME=" + home, "PATH=" + env.Getenv("PATH"), "TMPDIR=" + env.Getenv("TMPDIR")},
		dir: env.WorkDir,
		cas: map[string]*scriptCA{},
		t:   env.T(),

		faulty: map[string]*faulty{},
	}
	s.use("ca")
	env.Values[scriptKey{}] = s
	env.Defer(s.end)
	return nil
}

type scriptKey struct{}

// A script is the state of one running script.
type script struct {
	dir string   // $WORK
	env []string // of step-ca and of the harness' own calls of step
	cas map[string]*scriptCA
	ca  *scriptCA // the one in use
	t   testscript.T

	faulty map[string]*faulty // proxies and relays
}

func current(ts *testscript.TestScript) *scriptCA {
	return ts.Value(scriptKey{}).(*script).ca
}

func (s *script) use(name string) {
	if s.cas[name] == nil {
		dir := filepath.Join(s.dir, name)
		s.cas[name] = &scriptCA{
			name: name, dir: dir, env: append(slices.Clip(s.env), "STEPPATH="+dir),
			renewals: make(chan string, 100),
		}
	}
	s.ca = s.cas[name]
}

// end stops the CAs of a script, and shows the end of their logs if it failed.
func (s *script) end() {
	for _, ca := range s.cas {
		if t, ok := s.t.(interface{ Failed() bool }); ok && t.Failed() {
			ca.showLog(s.t)
		}
		if err := ca.stop(); err != nil {
			s.t.Log(err)
		}
	}
}

func (ca *scriptCA) showLog(t testscript.T) {
	log, err := os.ReadFile(ca.dir + ".log")
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	for _, line := range lines[max(0, len(lines)-10):] {
		t.Log(fmt.Sprintf("%s: %.300s", ca.name, line)) // certificates are long
	}
}

// A scriptCA is a certificate authority of one script.
type scriptCA struct {
	name, dir string
	env       []string
	address   string        // host:port
	process   *exec.Cmd     // nil unless it runs
	gone      chan struct{} // closed when process has ended
	renewals  chan string   // the log lines of requests to renew
	saved     map[string]string
	owner     *owner // of its files, unless it is who runs the tests
}

func cmdCA(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: ca init|start|stop|restart|use …")
	}
	ca, rest := current(ts), args[1:]
	var err error
	switch args[0] {
	case "use":
		if len(rest) != 1 {
			ts.Fatalf("usage: ca use NAME")
		}
		ts.Value(scriptKey{}).(*script).use(rest[0])
	case "init":
		err = ca.init(ts, rest)
	case "start":
		if ca.address == "" || len(rest) > 0 {
			ts.Check(ca.init(ts, rest))
		}
		err = ca.startAnywhere(ts)
	case "stop":
		err = ca.stop()
	case "kill":
		err = ca.kill()
	case "restart":
		ts.Check(ca.stop())
		err = ca.start()
	default:
		ts.Fatalf("unknown: ca %s", args[0])
	}
	ts.Check(err)
}

// templateAddress is the address in a template; no CA ever listens there.
const templateAddress = "127.0.0.1:1"

// A template is a CA that scripts start from, because step ca init takes a
// second. Two scripts may have copies of one, but a script never has two.
type template struct {
	dir, fingerprint, kid string
}

var templates = struct {
	sync.Mutex
	made map[string]*template
}{made: map[string]*template{}}

func getTemplate(name string, remote bool) (*template, error) {
	templates.Lock()
	defer templates.Unlock()
	key := name
	if remote {
		key += "-remote"
	}
	if t := templates.made[key]; t != nil {
		return t, nil
	}
	t, err := newTemplate(filepath.Join(sharedDir, key), remote)
	if err == nil {
		templates.made[key] = t
	}
	return t, err
}

func newTemplate(dir string, remote bool) (*template, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	password, provisionerPassword := filepath.Join(dir, "password"), filepath.Join(dir, "provisioner-password")
	for _, file := range []string{password, provisionerPassword} {
		if err := os.WriteFile(file, []byte(rand.Text()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	bin, err := tools()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(bin, "step"), "ca", "init", "--name", filepath.Base(dir),
		"--dns", "127.0.0.1", "--address", templateAddress, "--provisioner", "admin",
		"--password-file", password, "--provisioner-password-file", provisionerPassword)
	if remote {
		cmd.Args = append(cmd.Args, "--remote-management")
	}
	cmd.Env = []string{"HOME=" + dir, "STEPPATH=" + dir, "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("step ca init: %w\n%s", err, out)
	}
	var defaults struct{ Fingerprint string }
	if err := readJSON(filepath.Join(dir, "config", "defaults.json"), &defaults); err != nil {
		return nil, err
	}
	var config struct {
		Authority struct {
			Provisioners []struct {
				Key          struct{ Kid string }
				EncryptedKey string
			}
		}
	}
	if err := readJSON(filepath.Join(dir, "config", "ca.json"), &config); err != nil {
		return nil, err
	}
	t := &template{dir: dir, fingerprint: defaults.Fingerprint}
	if p := config.Authority.Provisioners; len(p) > 0 {
		t.kid = p[0].Key.Kid
		cmd := exec.Command(filepath.Join(bin, "step"), "crypto", "jwe", "decrypt", "--password-file", provisionerPassword)
		cmd.Stdin = strings.NewReader(p[0].EncryptedKey)
		key, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("step crypto jwe decrypt: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "provisioner-key"), key, 0o600); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// init makes the CA's directory out of a template.
func (ca *scriptCA) init(ts *testscript.TestScript, options []string) error {
	t, err := getTemplate(ca.name, slices.Contains(options, "remote"))
	if err != nil {
		return err
	}
	if err := os.CopyFS(ca.dir, os.DirFS(t.dir)); err != nil {
		return err
	}
	for _, secret := range []string{"password", "provisioner-password"} { // CopyFS does not keep the mode
		if err := os.Chmod(filepath.Join(ca.dir, secret), 0o600); err != nil {
			return err
		}
	}
	ca.address = templateAddress
	if err := ca.configure(t.dir, ca.dir); err != nil {
		return err
	}
	file := filepath.Join(ca.dir, "config", "ca.json")
	var config map[string]any
	if err := readJSON(file, &config); err != nil {
		return err
	}
	for _, option := range options {
		switch option {
		case "remote":
		case "crl":
			config["crl"] = map[string]any{"enabled": true, "generateOnRevoke": true}
		case "db=bbolt":
			config["db"] = map[string]any{"type": "bbolt", "dataSource": filepath.Join(ca.dir, "bbolt.db")}
		case "db=none":
			delete(config, "db")
		default:
			if config["db"], err = databaseConfig(ts, ca, option); err != nil {
				return err
			}
		}
	}
	b, err := json.MarshalIndent(config, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	ts.Setenv(ca.name+"_fingerprint", t.fingerprint)
	ts.Setenv(ca.name+"_kid", t.kid)
	return ca.moveTo(ts, freeAddress())
}

// configure replaces a string in the CA's configuration files.
func (ca *scriptCA) configure(from, to string) error {
	for _, name := range []string{"ca.json", "defaults.json"} {
		file := filepath.Join(ca.dir, "config", name)
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// moveTo gives the CA another address.
func (ca *scriptCA) moveTo(ts *testscript.TestScript, address string) error {
	err := ca.configure(ca.address, address)
	ca.address = address
	ts.Setenv(ca.name+"_url", "https://"+address)
	return err
}

var addresses = struct {
	sync.Mutex
	used map[int]bool
}{used: map[int]bool{}}

// freeAddress returns a loopback address that nobody listens on and that this
// process has not returned before. It stays below the ports that systems hand
// out for outgoing connections: one of those could take the port of a CA that
// is stopped for a moment.
func freeAddress() string {
	addresses.Lock()
	defer addresses.Unlock()
	for {
		port := 20000 + mathrand.IntN(12000)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if addresses.used[port] {
			continue
		}
		addresses.used[port] = true
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}

// startAnywhere starts step-ca, at another address if its own was taken.
func (ca *scriptCA) startAnywhere(ts *testscript.TestScript) error {
	for {
		err := ca.start()
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
		if err := ca.moveTo(ts, freeAddress()); err != nil {
			return err
		}
	}
}

// start starts step-ca and returns when it serves.
func (ca *scriptCA) start() error {
	if ca.process != nil {
		return fmt.Errorf("the CA %s is running already", ca.name)
	}
	log, err := os.OpenFile(ca.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	bin, err := tools()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(bin, "step-ca"), "--password-file", filepath.Join(ca.dir, "password"),
		filepath.Join(ca.dir, "config", "ca.json"))
	cmd.Env, cmd.Dir = ca.env, ca.dir
	ca.owner.run(cmd)
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ready, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		defer log.Close()
		var lines []string
		for in := bufio.NewScanner(out); in.Scan(); {
			line := in.Text()
			fmt.Fprintln(log, line)
			lines = append(lines, line)
			switch {
			case strings.Contains(line, "Serving HTTPS on "):
				tell(ready, nil)
			case strings.Contains(line, "path=/renew"):
				tell(ca.renewals, line)
			}
		}
		_, _ = io.Copy(io.Discard, out)
		err := cmd.Wait()
		tell(ready, fmt.Errorf("step-ca has ended: %v\n%s", err, strings.Join(lines, "\n")))
	}()
	ca.process, ca.gone = cmd, gone
	select {
	case err = <-ready:
	case <-time.After(tooLong):
		err = errors.New("step-ca does not start to serve")
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-gone
		ca.process = nil
	}
	return err
}

// tell sends to whoever may be listening.
func tell[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// kill ends a running step-ca at once.
func (ca *scriptCA) kill() error {
	cmd := ca.process
	ca.process = nil
	err := cmd.Process.Kill()
	<-ca.gone
	return err
}

// stop has a running step-ca shut down, and returns when its process is gone.
func (ca *scriptCA) stop() error {
	if ca.process == nil {
		return nil
	}
	cmd := ca.process
	ca.process = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping step-ca: %w", err)
	}
	select {
	case <-ca.gone:
	case <-time.After(tooLong):
		_ = cmd.Process.Kill()
		return errors.New("step-ca does not stop")
	}
	if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		return nil
	}
	// It serves shortly before it handles signals, and has left its database open.
	if err := ca.start(); err != nil {
		return err
	}
	return ca.stop()
}

// step runs the real step in the CA's own environment, whatever a script has
// made of its own, and returns what it printed.
func (ca *scriptCA) step(args ...string) (string, error) {
	bin, err := tools()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(bin, "step"), args...)
	cmd.Env, cmd.Dir = ca.env, ca.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func cmdIssue(ts *testscript.TestScript, neg bool, args []string) {
	n := slices.IndexFunc(args, func(s string) bool { return strings.HasPrefix(s, "-") })
	if n < 0 {
		n = len(args)
	}
	names, flags := args[:n], args[n:]
	if neg || n == 0 {
		ts.Fatalf("usage: issue NAME... [flags of step ca certificate]")
	}
	ca := current(ts)
	for _, def := range [][2]string{
		{"--provisioner", "admin"},
		{"--provisioner-password-file", filepath.Join(ca.dir, "provisioner-password")},
	} {
		if !slices.Contains(flags, def[0]) {
			flags = append(flags, def[0], def[1])
		}
	}
	errs := make([]error, n)
	var group sync.WaitGroup
	for i, name := range names {
		crt, key := ts.MkAbs(name+".crt"), ts.MkAbs(name+".key")
		group.Go(func() {
			// Of requests at the same time a CA on MariaDB refuses some (a deadlock).
			for range 3 {
				out, err := ca.step(append([]string{"ca", "certificate", name, crt, key}, flags...)...)
				if err == nil {
					errs[i] = nil
					return
				}
				errs[i] = fmt.Errorf("issuing %s: %w\n%s", name, err, out)
			}
		})
	}
	group.Wait()
	ts.Check(errors.Join(errs...))
	for _, name := range names {
		crt, err := certificateIn(ts.MkAbs(name + ".crt"))
		ts.Check(err)
		ts.Setenv(name, crt.SerialNumber.String())
		ts.Setenv(name+"_hex", fmt.Sprintf("%#x", crt.SerialNumber))
	}
}

func certificateIn(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// renew renews a certificate into another file. What step-ca logs about it is
// returned too: the client learns nothing but that it is not authorized.
func (ca *scriptCA) renew(ts *testscript.TestScript, name string) (log string, err error) {
	for len(ca.renewals) > 0 {
		<-ca.renewals
	}
	out, err := ca.step("ca", "renew", "--force", "--out", ts.MkAbs(name+".renewed"),
		ts.MkAbs(name+".crt"), ts.MkAbs(name+".key"))
	if err != nil {
		err = fmt.Errorf("%s was not renewed: %s", name, out)
	}
	select {
	case log = <-ca.renewals:
	case <-time.After(tooLong):
		err = errors.Join(err, errors.New("step-ca logged no request to renew"))
	}
	return log, err
}

func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused NAME...")
	}
	for _, name := range args {
		log, err := current(ts).renew(ts, name)
		switch {
		case err == nil:
			ts.Fatalf("%s was renewed, so it is not revoked", name)
		case !strings.Contains(log, "certificate has been revoked"):
			ts.Fatalf("not because it is revoked: %v\n%s", err, log)
		}
	}
}

func cmdRenews(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: renews NAME...")
	}
	for _, name := range args {
		_, err := current(ts).renew(ts, name)
		ts.Check(err)
	}
}

func cmdCRL(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || len(args) > 2 || neg && len(args) > 1 {
		ts.Fatalf("usage: crl SERIAL [CODE], or ! crl SERIAL")
	}
	list, err := current(ts).crl()
	ts.Check(err)
	serial, ok := new(big.Int).SetString(args[0], 10)
	if !ok {
		ts.Fatalf("%q is not a serial number", args[0])
	}
	i := slices.IndexFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(serial) == 0
	})
	switch {
	case i < 0 && !neg:
		ts.Fatalf("the CRL does not hold %s", serial)
	case i >= 0 && neg:
		ts.Fatalf("the CRL holds %s", serial)
	case neg || len(args) == 1:
		return
	}
	entry := list.RevokedCertificateEntries[i]
	coded := slices.ContainsFunc(entry.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal([]int{2, 5, 29, 21}) // RFC 5280, section 5.3.1
	})
	if strconv.Itoa(entry.ReasonCode) != args[1] || coded != (args[1] != "0") {
		ts.Fatalf("the CRL holds %s with reason code %d (extension: %t)", serial, entry.ReasonCode, coded)
	}
}

// crl returns the CRL that the CA serves, or that its database holds, once it
// is shown to be the CA's.
func (ca *scriptCA) crl() (*x509.RevocationList, error) {
	var der []byte
	var err error
	if ca.process != nil {
		der, err = ca.get("/1.0/crl")
	} else {
		var stored map[string]string
		stored, err = ca.database()
		var info struct{ DER []byte }
		if err == nil {
			err = json.Unmarshal([]byte(stored["x509_crl/crl"]), &info)
		}
		der = info.DER
	}
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	issuer, err := certificateIn(filepath.Join(ca.dir, "certs", "intermediate_ca.crt"))
	if err != nil {
		return nil, err
	}
	return list, list.CheckSignatureFrom(issuer)
}

// get makes a request of the CA, as a relying party would.
func (ca *scriptCA) get(path string) ([]byte, error) {
	root, err := certificateIn(filepath.Join(ca.dir, "certs", "root_ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	client := http.Client{
		Timeout:   tooLong,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
	}
	response, err := client.Get("https://" + ca.address + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

func cmdRecorded(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] recorded SERIAL")
	}
	stored, err := current(ts).database()
	ts.Check(err)
	record, ok := stored["revoked_x509_certs/"+args[0]]
	switch {
	case ok && neg:
		ts.Fatalf("the CA's database holds a revocation of %s: %s", args[0], record)
	case !ok && !neg:
		ts.Fatalf("the CA's database holds no revocation of %s", args[0])
	}
	fmt.Fprintln(ts.Stdout(), record)
}

func cmdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: snapshot")
	}
	ca := current(ts)
	var err error
	ca.saved, err = ca.database()
	ts.Check(err)
}

func cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	ca := current(ts)
	if neg || len(args) != 0 || ca.saved == nil {
		ts.Fatalf("usage: unchanged, after snapshot")
	}
	now, err := ca.database()
	ts.Check(err)
	before := maps.Clone(ca.saved)
	delete(before, "x509_crl/crl")
	delete(now, "x509_crl/crl")
	if maps.Equal(before, now) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if old, ok := before[key]; !ok || old != now[key] {
			ts.Logf("new or changed: %s: %.200q", key, now[key])
		}
		delete(before, key)
	}
	ts.Fatalf("the CA's database has changed; gone: %q", slices.Sorted(maps.Keys(before)))
}

// database returns what the CA's database holds, as table/key to value. A
// running CA is stopped for it.
func (ca *scriptCA) database() (_ map[string]string, err error) {
	var config struct {
		DB *struct{ Type, DataSource, Database string }
	}
	if err := readJSON(filepath.Join(ca.dir, "config", "ca.json"), &config); err != nil {
		return nil, err
	}
	if config.DB == nil {
		return nil, errors.New("the CA has no database")
	}
	if servers[config.DB.Type] != nil {
		return readServer(config.DB.Type, config.DB.DataSource, config.DB.Database)
	}
	if ca.process != nil {
		if err := ca.stop(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, ca.start()) }()
	}
	if config.DB.Type == "bbolt" {
		return readBbolt(config.DB.DataSource)
	}
	return readBadger(config.DB.DataSource)
}

// readBadger reads a badger database in the key format of smallstep/nosql:
// table and key, each behind its length in two bytes.
func readBadger(dir string) (map[string]string, error) {
	entries := map[string]string{}
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	// A copy: what step-ca leaves may have entries that badger replays when it
	// opens the database, and it refuses to when that is to be read only.
	clone, err := os.MkdirTemp(sharedDir, "db")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(clone)
	if err := os.CopyFS(clone, os.DirFS(dir)); err != nil {
		return nil, err
	}
	db, err := badger.Open(badger.DefaultOptions(clone).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return entries, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			var path []string
			for key := it.Item().Key(); len(key) >= 2; {
				n := 2 + int(binary.LittleEndian.Uint16(key))
				path = append(path, string(key[2:n]))
				key = key[n:]
			}
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			entries[strings.Join(path, "/")] = string(value)
		}
		return nil
	})
}

func readBbolt(file string) (map[string]string, error) {
	entries := map[string]string{}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: tooLong})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return entries, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(table []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				entries[string(table)+"/"+string(key)] = string(value)
				return nil
			})
		})
	})
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [args...]")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// terminalMain is the program at-terminal. It has the exit code of the program
// it runs, or 125 when the dialogue was another one.
func terminalMain() {
	args := os.Args[1:]
	piped := len(args) > 0 && args[0] == "-piped"
	if piped {
		args = args[1:]
	}
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: at-terminal [-piped] DIALOGUE PROGRAM [args...]")
		os.Exit(125)
	}
	dialogue, err := os.ReadFile(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	code, err := runAtTerminal(string(dialogue), piped, exec.Command(args[1], args[2:]...))
	if err != nil {
		fmt.Fprintln(os.Stderr, "at-terminal:", err)
		code = 125
	}
	os.Exit(code)
}

func runAtTerminal(dialogue string, piped bool, cmd *exec.Cmd) (int, error) {
	control, tty, err := pty.Open()
	if err != nil {
		return 0, err
	}
	// Wide enough that nothing is wrapped; without a size nothing is drawn.
	if err := pty.Setsize(control, &pty.Winsize{Rows: 50, Cols: 400}); err != nil {
		return 0, err
	}
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if piped {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles, cmd.SysProcAttr.Ctty = []*os.File{tty}, 3
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	tty.Close()
	// The whole group: step leaves a plugin behind.
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	timer := time.AfterFunc(tooLong/2, kill)
	screen := &screen{in: control}
	err = converse(dialogue, screen, control, cmd.Process)
	if err != nil {
		kill()
	}
	for screen.read() == nil {
	}
	wait := cmd.Wait()
	if !timer.Stop() && err == nil {
		err = errors.New("the program did not end after the dialogue")
	}
	if !piped || err != nil {
		fmt.Print(screen.text.String())
	}
	if exit := (*exec.ExitError)(nil); wait != nil && !errors.As(wait, &exit) {
		return 0, wait
	}
	return cmd.ProcessState.ExitCode(), err
}

// converse has the dialogue: it waits for questions and types answers.
func converse(dialogue string, screen *screen, keyboard io.Writer, process *os.Process) error {
	for line := range strings.Lines(dialogue) {
		sign, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var keys string
		switch sign {
		case "?":
			if err := screen.await(rest); err != nil {
				return err
			}
			continue
		case ">":
			keys = os.ExpandEnv(rest) + "\r"
		case "<":
			b, err := os.ReadFile(os.ExpandEnv(rest))
			if err != nil {
				return err
			}
			keys = strings.TrimSpace(string(b)) + "\r"
		case "=":
			var err error
			if keys, err = strconv.Unquote(rest); err != nil {
				return err
			}
		case "!":
			if err := process.Signal(unix.SignalNum("SIG" + rest)); err != nil {
				return err
			}
			continue
		case "!!":
			if err := syscall.Kill(-process.Pid, unix.SignalNum("SIG"+rest)); err != nil {
				return err
			}
			continue
		case "", "#":
		default:
			return fmt.Errorf("cannot read the dialogue's line %q", line)
		}
		if _, err := io.WriteString(keyboard, keys); err != nil {
			return err
		}
	}
	return nil
}

// A screen is what appeared at a pseudo-terminal, without control characters.
type screen struct {
	in     io.Reader
	escape []byte // an escape sequence that is not complete yet
	text   bytes.Buffer
	seen   int // how much of text await has passed
}

var escapeSequence = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[^\[])`)

// read waits for more on the screen. It returns an error when the programs
// that had it open are gone.
func (s *screen) read() error {
	buffer := make([]byte, 4096)
	n, err := s.in.Read(buffer)
	raw := escapeSequence.ReplaceAll(append(s.escape, buffer[:n]...), nil)
	s.escape = nil
	if i := bytes.IndexByte(raw, '\x1b'); i >= 0 {
		raw, s.escape = raw[:i], bytes.Clone(raw[i:])
	}
	for _, c := range raw {
		switch n := s.text.Len(); {
		case c == '\b' && n > s.seen && s.text.Bytes()[n-1] == ' ':
			s.text.Truncate(n - 1) // how readline wipes
		case c >= ' ' || c == '\n':
			s.text.WriteByte(c)
		}
	}
	return err
}

// await waits until something new on the screen matches, and passes it.
func (s *screen) await(expression string) error {
	re, err := regexp.Compile(expression)
	if err != nil {
		return err
	}
	for {
		if at := re.FindIndex(s.text.Bytes()[s.seen:]); at != nil {
			s.seen += at[1]
			return nil
		}
		if err := s.read(); err != nil {
			return fmt.Errorf("the program has ended, or hangs, without showing %q", expression)
		}
	}
}
