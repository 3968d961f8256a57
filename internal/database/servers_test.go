//go:build unix

package database

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	nosqldb "github.com/smallstep/nosql/database"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
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
			for _, part := range []struct {
				name string
				test func(t *testing.T, kind, address string)
			}{
				{"read", serverRead}, {"records", serverRecords}, {"old", serverOld}, {"db", serverDB},
				{"busy", serverBusy}, {"hangs", serverHangs}, {"ends", serverEnds}, {"refused", serverRefused},
			} {
				t.Run(part.name, func(t *testing.T) { part.test(t, kind, address) })
			}
		})
	}
}

func readServer(t *testing.T, cfg *db.Config) *Snapshot {
	t.Helper()
	s, err := Read(t.Context(), cfg, beside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func serverRead(t *testing.T, kind, address string) {
	for _, n := range []int{0, 1, 257, 1000} {
		cfg := filledServer(t, kind, address, fmt.Sprintf("read%d", n), n)
		s := readServer(t, cfg)
		write(t, cfg, func(to nosqldb.DB) error { return store(to, n, n+5) }) // after the snapshot
		compare(t, s, n)
		compare(t, s, n)
		compare(t, readServer(t, cfg), n+5)
	}
}

// write writes to a database as the CA would.
func write(t *testing.T, cfg *db.Config, what func(nosqldb.DB) error) {
	t.Helper()
	opened, err := Open(cfg, true)
	if err == nil {
		err = errors.Join(what(opened), opened.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func serverRecords(t *testing.T, kind, address string) {
	cfg := filledServer(t, kind, address, "records", 0)
	if kind == nosql.MySQLDriver { // whose columns are small
		conn, err := openSQL(cfg)
		if err == nil {
			_, err = conn.Exec("ALTER TABLE x509_certs MODIFY nvalue LONGBLOB")
		}
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, cfg, func(to nosqldb.DB) (err error) {
		for _, entry := range []struct {
			table, key string
			value      []byte
		}{
			{certsTable, "7", []byte("seven")}, {certsDataTable, "7", []byte("{")},
			{certsTable, "8", bytes.Repeat([]byte{8}, maxValue+1)}, {certsDataTable, "8", []byte(`{"provisioner":null}`)},
			{certsTable, "9", bytes.Repeat([]byte{9}, maxValue)}, {certsDataTable, "9", []byte(`{"provisioner":{"id":"i","name":"n"},"ra":{}}`)},
			{revokedTable, "12345", []byte("no certificate")}, {revokedTable, "0xff", []byte("{}")}, {revokedTable, "\x00\xff", []byte("{}")},
		} {
			err = errors.Join(err, to.Set([]byte(entry.table), []byte(entry.key), entry.value))
		}
		return err
	})
	s := readServer(t, cfg)
	checkRecords(t, s)
	n, keys, err := s.Strays(t.Context())
	if slices.Sort(keys); err != nil || n != 2 || !slices.Equal(keys, []string{"\x00\xff", "0xff"}) {
		t.Errorf("%d %q, %v", n, keys, err)
	}
}

func serverOld(t *testing.T, kind, address string) {
	cfg := filledServer(t, kind, address, "old", 0, certsDataTable, crlTable, revokedTable)
	write(t, cfg, func(to nosqldb.DB) error { return to.Set([]byte(certsTable), []byte("7"), []byte("seven")) })
	s := readServer(t, cfg)
	if all := readAll(t, s); len(all) != 1 || all["7"] != (seen{serial: "7", der: "seven"}) {
		t.Errorf("%v", all)
	}
	if n, _, err := s.Strays(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func serverDB(t *testing.T, kind, address string) {
	s := readServer(t, filledServer(t, kind, address, "tables", 3))
	checkDB(t, s.DB())
	compare(t, s, 3)
}

// serverBusy reads beside a CA that writes all the time.
func serverBusy(t *testing.T, kind, address string) {
	cfg := filledServer(t, kind, address, "busy", 0)
	var written atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	opened, err := Open(cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		var err error
		for i := 0; ctx.Err() == nil && err == nil; i++ {
			err = store(opened, i, i+1)
			written.Store(int64(i))
		}
		done <- err
	}()
	for range 20 {
		before := int(written.Load())
		s := readServer(t, cfg)
		if n := len(readAll(t, s)); n < before {
			t.Errorf("%d, want %d at least", n, before)
		}
	}
	stop()
	if err := errors.Join(<-done, opened.Close()); err != nil {
		t.Error(err)
	}
}

// stuckProxy passes on what a server sends until that are so many bytes.
func stuckProxy(t *testing.T, address string, bytes int64) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for client, err := listener.Accept(); err == nil; client, err = listener.Accept() {
			server, err := net.Dial("tcp", address)
			if err != nil {
				client.Close()
				continue
			}
			t.Cleanup(func() {
				client.Close()
				server.Close()
			})
			go func() { _, _ = io.Copy(server, client) }()
			go func() { _, _ = io.CopyN(client, server, bytes) }()
		}
	}()
	return listener.Addr().String()
}

// serverHangs reads from a server that stops in the middle.
func serverHangs(t *testing.T, kind, address string) {
	filledServer(t, kind, address, "hangs", 1000)
	how := Reading{Beside: true, Quiet: true, Timeout: 2 * time.Second}
	want := "the CA's database server did not answer within 2s"
	s, err := Read(t.Context(), serverConfig(kind, stuckProxy(t, address, 300_000), "hangs"), how)
	if err != nil {
		t.Fatal(err)
	}
	all, errs := mapped(t.Context(), s, look)
	if len(errs) != 1 || errs[0].Error() != want || len(all) == 0 {
		t.Errorf("in the middle: %d, %v", len(all), errs)
	}
	if _, err := s.Certificate("1"); err == nil || strings.Contains(err.Error(), serverPassword) {
		t.Errorf("afterwards: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Read(t.Context(), serverConfig(kind, stuckProxy(t, address, 3), "hangs"), how); err == nil || !strings.HasPrefix(err.Error(), "the CA's database server") {
		t.Errorf("in the beginning: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	how.Timeout = time.Hour
	if s, err = Read(ctx, serverConfig(kind, stuckProxy(t, address, 300_000), "hangs"), how); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, errs := mapped(ctx, s, look); len(errs) != 1 || !errors.Is(errs[0], problem.ErrInterrupted) {
		t.Errorf("interrupted: %v", errs)
	}
	_ = s.Close()
}

// serverEnds leaves the loop early, which ends the snapshot.
func serverEnds(t *testing.T, kind, address string) {
	s := readServer(t, filledServer(t, kind, address, "ends", 10_000))
	for range Map(t.Context(), s, look) {
		if _, err := s.Certificate("1"); !errors.Is(err, errServerBusy) {
			t.Errorf("meanwhile: %v", err)
		}
		break
	}
	if _, errs := mapped(t.Context(), s, look); len(errs) != 1 {
		t.Errorf("%v", errs)
	}
}

func serverRefused(t *testing.T, kind, address string) {
	cfg := serverConfig(kind, address, "foreign")
	made, err := nosql.New(cfg.Type, cfg.DataSource, nosql.WithDatabase(cfg.Database))
	if err := errors.Join(err, made.CreateTable([]byte("mine")), made.Close()); err != nil {
		t.Fatal(err)
	}
	missing, wrong := serverConfig(kind, address, "missing"), serverConfig(kind, address, "foreign")
	wrong.DataSource = strings.Replace(wrong.DataSource, serverPassword, "mellon", 1)
	for want, cfg := range map[string]*db.Config{
		"the CA's database is not one of step-ca: it has no table ssh_hosts": cfg,
		"the CA's database does not exist on its server":                     missing,
		"the CA's database server: ":                                         wrong,
	} {
		if _, err := Read(t.Context(), cfg, beside); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "mellon") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
