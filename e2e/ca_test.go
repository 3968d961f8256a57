//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

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
	name, dir   string
	env         []string
	version     string    // of step-ca; empty: the one that is in $PATH
	flags       []string  // of step-ca, more than it always has
	issuer      *scriptCA // the CA behind a registration authority
	address     string    // host:port
	fingerprint string
	process     *exec.Cmd     // nil unless it runs
	gone        chan struct{} // closed when process has ended
	renewals    chan string   // the log lines of requests to renew
	saved       map[string]string
	owner       *owner // of its files, unless it is who runs the tests
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
		port := 20000 + rand.IntN(12000)
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
	program, err := ca.program()
	if err != nil {
		return err
	}
	args := []string{"--password-file", filepath.Join(ca.dir, "password")}
	if ca.issuer != nil {
		args = append(args, "--issuer-password-file", filepath.Join(ca.issuer.dir, "provisioner-password"))
	}
	cmd := exec.Command(program, append(append(args, ca.flags...), filepath.Join(ca.dir, "config", "ca.json"))...)
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

// program returns the path of the CA's step-ca.
func (ca *scriptCA) program() (string, error) {
	if ca.version != "" {
		return toolPath(filepath.Join("tools", ca.version, "go.mod"), "step-ca")
	}
	bin, err := tools()
	return filepath.Join(bin, "step-ca"), err
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

// An owner is the user whom the command give has given a CA.
type owner struct {
	credential *syscall.Credential
	program    string // a step-ca where that user can run it
}

func cmdGive(ts *testscript.TestScript, neg bool, args []string) {
	ca := current(ts)
	if neg || len(args) != 1 || ca.process != nil {
		ts.Fatalf("usage: give USER, while the CA is stopped")
	}
	credential, err := credentialOf(args[0])
	ts.Check(err)
	ts.Check(filepath.WalkDir(ca.dir, func(file string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(file, int(credential.Uid), int(credential.Gid)))
	}))
	original, err := ca.program()
	ts.Check(err)
	program := ts.MkAbs("step-ca")
	ts.Check(ts.Exec("cp", original, program))
	ts.Check(os.Chmod(filepath.Dir(ts.MkAbs(".")), 0o711))
	ca.owner = &owner{credential, program}
}

func credentialOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// run makes step-ca a program of the owner, if there is one.
func (o *owner) run(cmd *exec.Cmd) {
	if o != nil {
		cmd.Path, cmd.SysProcAttr = o.program, &syscall.SysProcAttr{Credential: o.credential}
	}
}
