package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	pgxstdlib "github.com/jackc/pgx/v5/stdlib"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/cli-utils/step"
	"github.com/smallstep/nosql"
)

// The CA's database is somebody else's: it is opened only if it is there and
// certainly the CA's, and nothing is created in it.

// databaseTypes are the types of database that step-ca knows.
var databaseTypes = []string{
	nosql.BadgerDriver, nosql.BadgerV1Driver, nosql.BadgerV2Driver, nosql.BBoltDriver, nosql.MySQLDriver, nosql.PostgreSQLDriver,
}

// databaseFiles are the files or directories that a database is in, or none
// for a database server.
func databaseFiles(cfg *db.Config) []string {
	switch strings.ToLower(cfg.Type) {
	case nosql.BadgerDriver, nosql.BadgerV1Driver, nosql.BadgerV2Driver:
		if cfg.ValueDir != "" && cfg.ValueDir != cfg.DataSource {
			return []string{cfg.DataSource, cfg.ValueDir}
		}
		return []string{cfg.DataSource}
	case nosql.BBoltDriver:
		return []string{cfg.DataSource}
	}
	return nil
}

// checkDatabaseFiles makes sure that a database in files is there and belongs
// to the user who runs this. Files that another user leaves in it, root above
// all, would keep step-ca from starting.
func checkDatabaseFiles(cfg *db.Config) error {
	if !slices.Contains(databaseTypes, strings.ToLower(cfg.Type)) {
		return usagef("the CA's database is of an unknown type, %q", cfg.Type).hint("check \"db\" in ca.json")
	}
	for _, file := range databaseFiles(cfg) {
		info, err := os.Stat(file)
		if err != nil {
			return usagef("the CA's database: %w", err).hint("check \"db\" in ca.json; a new database would be a new CA")
		}
		owner, path, err := foreignOwner(file)
		switch {
		case err != nil:
			return usagef("the CA's database: %w", err)
		case owner != "":
			return usagef("the CA's database belongs to another user: %s is owned by %s", path, owner).
				hint("run it as that user: %s", sudoCommand(owner))
		}
		empty := info.Size() == 0
		if info.IsDir() {
			found, _ := filepath.Glob(filepath.Join(file, "*"))
			empty = len(found) == 0
		}
		if empty {
			return usagef("the CA's database: %s is empty", file).hint("check \"db\" in ca.json; a new database would be a new CA")
		}
	}
	if strings.HasPrefix(strings.ToLower(cfg.Type), nosql.BadgerDriver) {
		if _, err := os.Stat(filepath.Join(cfg.DataSource, "MANIFEST")); err != nil {
			return usagef("the CA's database: %s is not a Badger database", cfg.DataSource).hint("check \"db\" in ca.json")
		}
	}
	return nil
}

// sudoCommand is this very command line as another user would have to run it,
// with those of step's variables that count for it.
func sudoCommand(user string) string {
	words := []string{"sudo", "-u", user, "env", step.PathEnv + "=" + step.BasePath()}
	for _, flag := range allFlags() {
		name, _, _ := strings.Cut(flag.GetName(), ",")
		if value, ok := os.LookupEnv(variableOf(name)); ok && name != "token" {
			words = append(words, variableOf(name)+"="+value)
		}
	}
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	words = append(append(words, program), os.Args[1:]...)
	for i, word := range words {
		words[i] = shellQuote(word)
	}
	return strings.Join(words, " ")
}

// shellQuote writes a word so that a shell reads it as it is.
func shellQuote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// openDatabase opens the CA's database. Errors do not show the data source of
// a server, which may hold a password.
func openDatabase(cfg *db.Config) (nosql.DB, error) {
	if err := checkServerDatabase(cfg); err != nil {
		return nil, err
	}
	opts := []nosql.Option{nosql.WithDatabase(cfg.Database), nosql.WithValueDir(cfg.ValueDir)}
	if cfg.BadgerFileLoadingMode != "" {
		opts = append(opts, nosql.WithBadgerFileLoadingMode(cfg.BadgerFileLoadingMode))
	}
	restore := silenceBadger()
	database, err := nosql.New(cfg.Type, cfg.DataSource, opts...)
	restore()
	switch {
	case err != nil && isLocked(cfg, err):
		return nil, failf("the CA's database %s is in use", cfg.DataSource).
			hint("the CA is running: revoke online, without --offline, or stop it first")
	case err != nil:
		return nil, failf("opening the CA's database: %w", err).hint("check \"db\" in ca.json")
	}
	// One of the two tables is in every step-ca database, and both are small.
	_, errCRL := database.List([]byte("x509_crl"))
	_, errSSH := database.List([]byte("ssh_hosts"))
	if errCRL != nil && errSSH != nil {
		_ = closeDatabase(database)
		return nil, failf("the CA's database is not one of step-ca: %w", errSSH).hint("check \"db\" in ca.json")
	}
	return database, nil
}

// closeTimeout is how long a database may take to close. One on a full disk
// may take forever: badger tries again and again, and bbolt waits for a
// transaction that package nosql has not ended.
const closeTimeout = 20 * time.Second

func closeDatabase(database nosql.DB) error {
	closed := make(chan error, 1)
	go func() { closed <- database.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			return failf("closing the CA's database: %w", err)
		}
		return nil
	case <-time.After(closeTimeout):
		return failf("the CA's database does not close").hint("STEPDEBUG=1 shows what it says; step-ca repairs it when it starts")
	}
}

// isLocked tells whether another process has the database open: badger says
// so, bbolt waits for five seconds and then gives up.
func isLocked(cfg *db.Config, err error) bool {
	if strings.EqualFold(cfg.Type, nosql.BBoltDriver) {
		return strings.HasSuffix(err.Error(), "timeout")
	}
	return strings.Contains(err.Error(), "directory lock")
}

// checkServerDatabase makes sure that the database exists on its server:
// package nosql would create it.
func checkServerDatabase(cfg *db.Config) error {
	var conn *sql.DB
	switch strings.ToLower(cfg.Type) {
	case nosql.PostgreSQLDriver:
		config, err := pgx.ParseConfig(cfg.DataSource)
		if err != nil {
			return failf("the data source of the CA's database cannot be read").hint("check \"db\" in ca.json")
		}
		if cfg.Database != "" {
			config.Database = cfg.Database
		}
		conn = pgxstdlib.OpenDB(*config)
	case nosql.MySQLDriver:
		config, err := mysql.ParseDSN(cfg.DataSource)
		if err != nil {
			return failf("the data source of the CA's database cannot be read").hint("check \"db\" in ca.json")
		}
		if cfg.Database != "" {
			config.DBName = cfg.Database
		}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return failf("the data source of the CA's database cannot be read").hint("check \"db\" in ca.json")
		}
		conn = sql.OpenDB(connector)
	default:
		return nil
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	err := conn.PingContext(ctx)
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg) && pg.Code == "3D000", errors.As(err, &my) && my.Number == 1049:
		return failf("the CA's database does not exist on its server").hint("check \"db\" in ca.json; a new database would be a new CA")
	}
	return failf("the CA's database server: %w", err)
}

var (
	badgerStderr = os.Stderr  // where badger v1 writes, since it was initialized
	realStderr   = *os.Stderr // the same file, under an address of our own
)

// silenceBadger keeps badger's log lines off standard error, which its wrapper
// in package nosql has no option for. Badger v1 took os.Stderr when it was
// initialized, and v2 takes it when it opens a database: so os.Stderr gets
// another address, and what stays at the old one is the null device.
func silenceBadger() (restore func()) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if debugging || err != nil {
		return func() {}
	}
	*badgerStderr = *null
	os.Stderr = badgerStderr
	return func() { os.Stderr = &realStderr }
}
