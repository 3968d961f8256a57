//go:build unix

package e2e

import (
	cryptorand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v2"
	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
)

func cmdLoaded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: loaded ca|badger N ARGS...")
	}
	runs, err := strconv.Atoi(args[1])
	ts.Check(err)
	l := &load{done: make(chan struct{}), failed: make(chan error, 1)}
	if args[0] == "ca" {
		err = l.byCA(current(ts))
	} else {
		err = l.byBadger(ts.MkAbs("churn"))
	}
	ts.Check(err)
	args = args[2:]
	base := looked(ts, args)
	l.start()
	last := base
	for range runs {
		least, most := base+int(l.issued.Load()), 0
		n := looked(ts, args)
		most = base + int(l.begun.Load())
		if n < max(least, last) || n > most {
			ts.Fatalf("looked at %d certificates; %d were issued before, %d until then, and %d were there last time", n, least, most, last)
		}
		last = n
	}
	ts.Check(l.stop())
	if n := looked(ts, args); n != base+int(l.issued.Load()) {
		ts.Fatalf("looked at %d certificates of %d", n, base+int(l.issued.Load()))
	}
	fmt.Fprintf(ts.Stdout(), "%d runs while %d certificates were issued\n", runs, last-base)
}

var lookedAt = regexp.MustCompile(`(?m)^Looked at ([0-9,]+) certificates?: `)

// looked runs the plugin and returns how many certificates it has looked at.
func looked(ts *testscript.TestScript, args []string) int {
	cmd := exec.Command(ts.Getenv("plugin"), args...)
	cmd.Dir, cmd.Env = ts.Getenv("WORK"), pluginEnv(ts)
	out, err := cmd.CombinedOutput()
	n := lookedAt.FindSubmatch(out)
	if err != nil || n == nil {
		ts.Fatalf("%v:\n%s", err, out)
	}
	number, err := strconv.Atoi(strings.ReplaceAll(string(n[1]), ",", ""))
	ts.Check(err)
	return number
}

// A load issues certificates all the time.
type load struct {
	issue         func(n int) error
	end           func() error
	begun, issued atomic.Int64
	done          chan struct{}
	failed        chan error
}

func (l *load) start() {
	go func() {
		var err error
		for n := 0; err == nil; n++ {
			select {
			case <-l.done:
				l.failed <- l.end()
				return
			default:
			}
			l.begun.Add(1)
			if err = l.issue(n); err == nil {
				l.issued.Add(1)
			}
		}
		l.failed <- err
	}()
}

func (l *load) stop() error {
	close(l.done)
	return <-l.failed
}

// byCA has the CA issue large certificates.
func (l *load) byCA(ca *scriptCA) error {
	key, err := os.ReadFile(filepath.Join(ca.dir, "provisioner-key"))
	if err != nil {
		return err
	}
	jwk, err := jose.ParseKey(key)
	m := stockMaker{ca: ca, jwks: map[string]*jose.JSONWebKey{"admin": jwk}}
	l.issue = func(n int) (err error) {
		s := &stocked{how: "admin", cn: fmt.Sprintf("load%d", n)}
		for i := range 50 {
			s.sans = append(s.sans, [2]string{"dns", fmt.Sprintf("%d.of.many.names.load%d.example.com", i, n)})
		}
		time.Sleep(20 * time.Millisecond) // leave something of the processor to the plugin
		return m.make(s)
	}
	l.end = func() error { return nil }
	return err
}

// byBadger writes to a Badger directory what a CA would, and makes Badger write,
// compact and drop tables and value logs much more often.
func (l *load) byBadger(dir string) error {
	options := badger.DefaultOptions(dir).WithLogger(nil).WithMaxTableSize(1 << 20).WithValueLogFileSize(1 << 20).
		WithNumLevelZeroTables(1).WithNumLevelZeroTablesStall(2).WithLevelOneSize(2 << 20).WithNumMemtables(1).WithValueThreshold(32).WithSyncWrites(false)
	db, err := badger.Open(options)
	if err != nil {
		return err
	}
	key, err := newKey("ecdsa")
	if err != nil {
		return err
	}
	if err := db.Update(func(txn *badger.Txn) error { return setAll(map[string]string{"ssh_hosts": ""}, txn.Set) }); err != nil {
		return err
	}
	garbage := strings.Repeat("a CRL that is soon replaced ", 150)
	l.issue = func(n int) error {
		template := &x509.Certificate{SerialNumber: new(big.Int).SetBytes([]byte(cryptorand.Text()[:16])), Subject: pkix.Name{CommonName: fmt.Sprintf("churn%d", n)}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
		if err != nil {
			return err
		}
		entries := map[string]string{"x509_certs/" + template.SerialNumber.String(): string(der), "x509_crl/crl": fmt.Sprint(n, garbage)}
		if err := db.Update(func(txn *badger.Txn) error { return setAll(entries, txn.Set) }); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
		if n%100 == 0 {
			_ = db.RunValueLogGC(0.01) // there may be none to collect
		}
		return nil
	}
	l.end = db.Close
	return l.issue(0)
}

func cmdCutShort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: cut-short KILL|TERM TIMES ARGS...")
	}
	times, err := strconv.Atoi(args[1])
	ts.Check(err)
	signal := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[args[0]]
	dir := filepath.Join(ts.Getenv("WORK"), "copies")
	ts.Check(os.Mkdir(dir, 0o777))
	defer os.RemoveAll(dir)
	left, start := 0, time.Now()
	looked(ts, args[2:])
	whole := time.Since(start)
	for range times {
		cmd := exec.Command(ts.Getenv("plugin"), args[2:]...)
		cmd.Dir, cmd.Env = ts.Getenv("WORK"), append(pluginEnv(ts), "TMPDIR="+dir)
		ts.Check(cmd.Start())
		time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 0 && code != 130 && code != -1 { // -1: it was ended by the signal
			ts.Fatalf("exit code %d", code)
		}
		entries, err := os.ReadDir(dir)
		ts.Check(err)
		left += len(entries)
		for _, entry := range entries {
			info, err := entry.Info()
			ts.Check(err)
			if info.Mode().Perm() != 0o700 || signal == syscall.SIGTERM {
				ts.Fatalf("%v is left, with the mode %v", entry, info.Mode())
			}
			ts.Check(os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	fmt.Fprintf(ts.Stdout(), "left %d times\n", left)
}
