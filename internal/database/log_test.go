//go:build unix

package database

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

// TestMain is also the process that TestBadgerLog and TestMySQLLog start. Otherwise
// it makes sure that the tests leave no temporary files, such as copies.
func TestMain(m *testing.M) {
	if kind := os.Getenv("TEST_LOG"); kind != "" {
		if err := use(kind, os.Getenv("TEST_LOG_SOURCE"), os.Getenv("TEST_LOG_STEP")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	tmp, err := os.MkdirTemp("", "step-revoke-test-")
	if err == nil {
		err = os.Chmod(tmp, 0o755) // for database servers
	}
	if err := errors.Join(err, os.Setenv("TMPDIR", tmp)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	for wait := time.Now().Add(10 * time.Second); ; {
		left, _ := os.ReadDir(tmp)
		if len(left) == 0 {
			break
		}
		if time.Now().After(wait) {
			fmt.Println("left:", left)
			code = 1
			break
		}
	}
	_ = os.RemoveAll(tmp)
	os.Exit(code)
}

// use makes a database of Badger, or opens it twice and writes to standard error
// in between, in both ways that there are. Of MySQL it opens what hangs up.
func use(kind, source, step string) error {
	cfg := &db.Config{Type: kind, DataSource: source}
	if kind == nosql.MySQLDriver {
		if _, err := Open(cfg, step == "quiet"); err == nil {
			return errors.New("opened")
		}
		return nil
	}
	if step == "create" {
		return create(cfg)
	}
	for i := range 2 {
		opened, err := Open(cfg, step == "quiet")
		if err != nil {
			return err
		}
		runtime.GC() // which would finalize a file that nothing refers to
		fmt.Fprintln(os.Stderr, "os.Stderr", i)
		if err := opened.Close(); err != nil {
			return err
		}
	}
	runtime.GC()
	_, err := os.NewFile(2, "descriptor 2").WriteString("descriptor 2\n")
	return err
}

// logged runs use in a process of its own and returns its standard error.
func logged(t *testing.T, kind, source, step string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_LOG="+kind, "TEST_LOG_SOURCE="+source, "TEST_LOG_STEP="+step)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", step, err, &stdout, &stderr)
	}
	return stderr.String()
}

// TestBadgerLog shows that badger says nothing where it shall not, and that
// standard error still works.
func TestBadgerLog(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			logged(t, kind, dir, "create")
			const ours = "os.Stderr 0\nos.Stderr 1\ndescriptor 2\n"
			if got := logged(t, kind, dir, "quiet"); got != ours {
				t.Errorf("quiet: %q, want %q", got, ours)
			}
			if got := logged(t, kind, dir, "loud"); !strings.Contains(got, "INFO") || !strings.Contains(got, "os.Stderr 1\n") {
				t.Errorf("not quiet: %q", got)
			}
		})
	}
}

// TestMySQLLog connects to what hangs up.
func TestMySQLLog(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			_ = conn.Close()
		}
	}()
	source := "ca@tcp(" + listener.Addr().String() + ")/"
	if got := logged(t, nosql.MySQLDriver, source, "quiet"); got != "" {
		t.Errorf("quiet: %q", got)
	}
	if got := logged(t, nosql.MySQLDriver, source, "loud"); !strings.Contains(got, "[mysql] ") {
		t.Errorf("not quiet: %q", got)
	}
}
