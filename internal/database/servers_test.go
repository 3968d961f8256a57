//go:build unix

package database

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

// serverPassword must not be in any error.
const serverPassword = "sesame"

// startServer starts a database server for the test. It returns its address.
func startServer(t testing.TB, kind string) string {
	t.Helper()
	places, name := "/usr/lib/postgresql/*/bin/postgres", "postgres"
	if kind == nosql.MySQLDriver {
		places, name = "/usr/sbin/mariadbd", "mariadbd"
	}
	found, _ := filepath.Glob(places)
	if len(found) == 0 {
		t.Skipf("%s is not installed", name)
	}
	program := slices.Max(found)
	dir, err := os.MkdirTemp("", "step-revoke-"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // as which PostgreSQL does not run
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, attr, append(os.Environ(), "TMPDIR="+dir)
		return cmd
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data, address := filepath.Join(dir, "data"), freeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	var init, serve []string
	if kind == nosql.MySQLDriver {
		init = []string{"mariadb-install-db", "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db"}
		serve = []string{program, "--no-defaults", "--datadir=" + data, "--socket=" + filepath.Join(dir, "socket"), "--pid-file=" + filepath.Join(dir, "pid"),
			"--bind-address=" + host, "--port=" + port, "--skip-name-resolve", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0",
			"--init-file=" + file("init", "CREATE USER 'step'@'127.0.0.1' IDENTIFIED BY '"+serverPassword+"';\nGRANT ALL ON *.* TO 'step'@'127.0.0.1';\n")}
	} else {
		init = []string{filepath.Join(filepath.Dir(program), "initdb"), "-D", data, "-U", "step", "--pwfile", file("password", serverPassword),
			"-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"}
		serve = []string{program, "-D", data, "-h", host, "-p", port, "-k", "", "-F"}
	}
	if out, err := run(init...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", init[0], err, out)
	}
	// The shell ends the server as soon as this process closes its input or ends.
	cmd := run(append([]string{"sh", "-c", `trap '' HUP INT TERM; "$@" & read -r _; kill -KILL $!; wait`, "sh"}, serve...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	leash, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leash.Close()
		_ = cmd.Wait()
	})
	for begun := time.Now(); ; {
		conn, err := openSQL(serverConfig(kind, address, ""))
		if err == nil {
			err = conn.Ping()
			conn.Close()
		}
		if err == nil {
			return address
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("%s does not start: %v", name, err)
		}
	}
}

func freeAddress(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// serverConfig is the configuration of a database on a server; the superuser's
// own without a name.
func serverConfig(kind, address, database string) *db.Config {
	if kind == nosql.MySQLDriver {
		return &db.Config{Type: kind, DataSource: fmt.Sprintf("step:%s@tcp(%s)/", serverPassword, address), Database: database}
	}
	source := url.URL{Scheme: "postgresql", User: url.UserPassword("step", serverPassword), Host: address, Path: "postgres"}
	return &db.Config{Type: kind, DataSource: source.String(), Database: database}
}

func openSQL(cfg *db.Config) (*sql.DB, error) {
	if cfg.Type == nosql.MySQLDriver {
		return openMySQL(cfg)
	}
	return openPostgres(cfg)
}

// filledServer makes a database with n certificates on a server.
func filledServer(t testing.TB, kind, address, database string, n int, without ...string) *db.Config {
	t.Helper()
	cfg := serverConfig(kind, address, database)
	made, err := nosql.New(cfg.Type, cfg.DataSource, nosql.WithDatabase(cfg.Database))
	if err != nil {
		t.Fatal(err)
	}
	err = createTables(made, without...)
	if err == nil && n > 0 {
		err = store(made, 0, n)
	}
	if err := errors.Join(err, made.Close()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestServer reads from real database servers.
func TestServer(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{nosql.PostgreSQLDriver, nosql.MySQLDriver} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			address := startServer(t, kind)
			for _, n := range []int{0, 1, 257, 1000} {
				cfg := filledServer(t, kind, address, fmt.Sprintf("db%d", n), n)
				for _, how := range []Reading{beside, stopped} {
					s, err := Read(t.Context(), cfg, how)
					if err != nil {
						t.Fatal(err)
					}
					compare(t, s, n)
					compare(t, s, n)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

var _ = strings.Contains
