//go:build unix

package e2e

import (
	"bufio"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/rogpeppe/go-internal/testscript"
)

// A server is a database server that this test process starts when the first
// script needs it, with one superuser. stopServers removes its data.
type server struct {
	name     string // the program
	places   string // pattern of directories besides $PATH that it may be in
	ready    string // what it logs then
	end      string // the signal that ends it at once
	initArgs func(s *server, program string) []string
	args     func(s *server) []string
	source   func(s *server, database string) string

	once                   sync.Once
	err                    error
	dir, address, password string
	made                   atomic.Int32 // databases
	watch                  *exec.Cmd    // the shell that the server is a child of
	leash                  io.Closer    // closing it ends the server
}

// databaseUser is the superuser of both servers.
const databaseUser = "step"

var servers = map[string]*server{
	"postgresql": {
		name: "postgres", places: "/usr/lib/postgresql/*/bin", ready: "ready to accept connections", end: "QUIT",
		initArgs: func(s *server, program string) []string {
			return []string{filepath.Join(filepath.Dir(program), "initdb"), "-D", s.data(), "-U", databaseUser, "--pwfile", s.file("password"),
				"-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"}
		},
		args: func(s *server) []string {
			host, port, _ := net.SplitHostPort(s.address)
			return []string{"-D", s.data(), "-h", host, "-p", port, "-k", "", "-F", "-c", "shared_buffers=16MB"}
		},
		source: func(s *server, database string) string {
			u := url.URL{Scheme: "postgresql", User: url.UserPassword(databaseUser, s.password), Host: s.address, Path: database}
			return u.String()
		},
	},
	"mysql": {
		name: "mariadbd", places: "/usr/sbin", ready: "ready for connections", end: "KILL",
		initArgs: func(s *server, _ string) []string {
			return []string{"mariadb-install-db", "--no-defaults", "--datadir=" + s.data(), "--auth-root-authentication-method=normal", "--skip-test-db"}
		},
		args: func(s *server) []string {
			host, port, _ := net.SplitHostPort(s.address)
			return []string{"--no-defaults", "--datadir=" + s.data(), "--socket=" + s.file("socket"), "--pid-file=" + s.file("pid"),
				"--bind-address=" + host, "--port=" + port, "--skip-name-resolve", "--skip-log-bin", "--init-file=" + s.file("init"),
				"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"}
		},
		source: func(s *server, database string) string {
			return fmt.Sprintf("%s:%s@tcp(%s)/%s", databaseUser, s.password, s.address, database)
		},
	},
}

func (s *server) data() string { return s.file("data") }

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *server) env() []string { return append(os.Environ(), "TMPDIR="+s.dir) }

// program finds the server's program, the newest where there are several.
func (s *server) program() (string, error) {
	dirs, err := filepath.Glob(s.places)
	if err != nil {
		return "", err
	}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, s.name)); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(s.name)
}

// start starts the server. PostgreSQL does not run as root.
func (s *server) start() error {
	program, err := s.program()
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "step-revoke-"+s.name); err != nil {
		return err
	}
	s.password = rand.Text()
	for name, text := range map[string]string{
		"password": s.password + "\n",
		"init": fmt.Sprintf("CREATE USER '%s'@'127.0.0.1' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%[1]s'@'127.0.0.1';\n",
			databaseUser, s.password),
	} {
		if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		if attr.Credential, err = credentialOf("nobody"); err != nil {
			return err
		}
		for _, file := range []string{s.dir, s.file("password"), s.file("init")} {
			if err := os.Chown(file, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
				return err
			}
		}
	}
	args := s.initArgs(s, program)
	init := exec.Command(args[0], args[1:]...)
	init.Dir, init.SysProcAttr, init.Env = s.dir, attr, s.env()
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	for range 10 { // addresses, in case somebody is faster
		s.address = freeAddress()
		if err = s.serve(program, attr); err == nil {
			return nil
		}
	}
	return err
}

// serve runs the server as the child of a shell. The shell ends the server when
// the test process closes the shell's standard input or has ended in any way.
func (s *server) serve(program string, attr *syscall.SysProcAttr) error {
	const script = `trap '' HUP INT TERM; end=$1; shift; "$@" & exec >&- 2>&-; read -r _; kill -s "$end" $!; wait`
	s.watch = exec.Command("sh", append([]string{"-c", script, "sh", s.end, program}, s.args(s)...)...)
	s.watch.Dir, s.watch.SysProcAttr, s.watch.Env = s.dir, attr, s.env()
	out, err := s.watch.StderrPipe()
	if err != nil {
		return err
	}
	s.watch.Stdout = s.watch.Stderr
	if s.leash, err = s.watch.StdinPipe(); err != nil {
		return err
	}
	if err := s.watch.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(tooLong, func() { s.leash.Close() })
	var log strings.Builder
	for in := bufio.NewScanner(out); in.Scan(); {
		fmt.Fprintln(&log, in.Text())
		if strings.Contains(in.Text(), s.ready) && timer.Stop() {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return nil
		}
	}
	s.leash.Close()
	_ = s.watch.Wait()
	s.watch = nil
	return fmt.Errorf("%s does not start:\n%s", s.name, &log)
}

// stopServers ends the servers that were started. All scripts must have ended.
func stopServers() {
	for _, s := range servers {
		if s.watch != nil {
			s.leash.Close()
			_ = s.watch.Wait()
		}
		if s.dir != "" {
			os.RemoveAll(s.dir)
		}
	}
}

// exec executes a statement as the superuser, and returns the rows of the
// answer, a line each.
func (s *server) exec(kind, database, statement string) (string, error) {
	db, err := openSQL(kind, s.source(s, database))
	if err != nil {
		return "", err
	}
	defer db.Close()
	rows, err := db.Query(statement)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	values, places := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	var lines strings.Builder
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return "", err
		}
		for i, v := range values {
			lines.WriteString([]string{"", "\t"}[min(i, 1)] + v.String)
		}
		lines.WriteString("\n")
	}
	return lines.String(), rows.Err()
}

// openSQL opens a database of one of step-ca's types.
func openSQL(kind, source string) (*sql.DB, error) {
	if kind == "postgresql" {
		kind = "pgx"
	}
	return sql.Open(kind, source)
}

func cmdQuery(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: query SQL")
	}
	var config struct{ DB struct{ Type string } }
	ts.Check(readJSON(filepath.Join(current(ts).dir, "config", "ca.json"), &config))
	s := servers[config.DB.Type]
	if s == nil {
		ts.Fatalf("the CA's database is not on a server")
	}
	rows, err := s.exec(config.DB.Type, ts.Getenv("database"), args[0])
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), rows)
}

// readServer reads a database on a server, which may be in use. It adds an entry
// with an empty key for each table.
func readServer(kind, source, database string) (map[string]string, error) {
	schema, quote := "'public'", `"`
	if kind == "mysql" {
		schema, quote = "database()", "`"
		if database != "" {
			config, err := mysql.ParseDSN(source)
			if err != nil {
				return nil, err
			}
			config.DBName = database
			source = config.FormatDSN()
		}
	}
	db, err := openSQL(kind, source)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	entries := map[string]string{}
	tables, err := pairs(db, "SELECT table_name, '' FROM information_schema.tables WHERE table_schema = "+schema)
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		entries[table[0]+"/"] = ""
		rows, err := pairs(db, fmt.Sprintf("SELECT nkey, nvalue FROM %[1]s%[2]s%[1]s", quote, table[0]))
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			entries[table[0]+"/"+row[0]] = row[1]
		}
	}
	return entries, nil
}

// pairs returns the rows of two columns that answer a query.
func pairs(db *sql.DB, query string) (list [][2]string, err error) {
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var pair [2]string
		if err := rows.Scan(&pair[0], &pair[1]); err != nil {
			return nil, err
		}
		list = append(list, pair)
	}
	return list, rows.Err()
}
