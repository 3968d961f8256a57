// Package database is the CA's database, which is somebody else's: it is opened
// only if it is there and certainly the CA's, and nothing is created in it.
package database

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// types are the types of database that step-ca knows.
var types = []string{
	nosql.BadgerDriver, nosql.BadgerV1Driver, nosql.BadgerV2Driver, nosql.BBoltDriver, nosql.MySQLDriver, nosql.PostgreSQLDriver,
}

const (
	checkHint = "check \"db\" in ca.json"
	newCAHint = checkHint + "; a new database would be a new CA"
)

// InFiles tells whether the database is in files of this host, and not on a
// database server.
func InFiles(cfg *db.Config) bool { return len(files(cfg)) > 0 }

func isBBolt(cfg *db.Config) bool { return strings.EqualFold(cfg.Type, nosql.BBoltDriver) }

func isBadger(cfg *db.Config) bool {
	return strings.HasPrefix(strings.ToLower(cfg.Type), nosql.BadgerDriver)
}

// files returns the files or directories that hold the database, or nothing for
// a database server.
func files(cfg *db.Config) []string {
	switch {
	case isBadger(cfg) && cfg.ValueDir != "" && cfg.ValueDir != cfg.DataSource:
		return []string{cfg.DataSource, cfg.ValueDir}
	case isBadger(cfg), isBBolt(cfg):
		return []string{cfg.DataSource}
	}
	return nil
}

// An OwnerError says that a file of the database belongs to another user. Files
// that this user left in such a database, root above all, would keep step-ca
// from starting.
type OwnerError struct {
	Path, Owner string // Owner is a user name, or # and a user ID, as sudo -u takes it
	Unreadable  bool   // to this user, who only wants to read it
}

func (e *OwnerError) Error() string {
	if e.Unreadable {
		return fmt.Sprintf("the CA's database cannot be read: %s belongs to %s", e.Path, e.Owner)
	}
	return fmt.Sprintf("the CA's database belongs to another user: %s is owned by %s", e.Path, e.Owner)
}

// Check makes sure that a database in files is there and belongs to the user who
// runs this. It opens nothing. An error may be an OwnerError.
func Check(cfg *db.Config) error { return check(cfg, false) }

// check is Check. With foreign the database may belong to another user, if this
// one can read it.
func check(cfg *db.Config, foreign bool) error {
	if !slices.Contains(types, strings.ToLower(cfg.Type)) {
		return problem.New("the CA's database is of an unknown type, %q", cfg.Type).Hint(checkHint)
	}
	for _, file := range files(cfg) {
		if err := checkFile(file, foreign); err != nil {
			return err
		}
	}
	if isBadger(cfg) {
		if _, err := os.Stat(filepath.Join(cfg.DataSource, manifestName)); err != nil {
			return problem.New("the CA's database: %s is not a Badger database", cfg.DataSource).Hint(checkHint)
		}
	}
	return nil
}

// checkFile checks one of the files or directories that hold the database.
func checkFile(file string, foreign bool) error {
	info, err := os.Stat(file)
	if err != nil {
		if unreadable := unreadable(err); foreign && unreadable != nil {
			return unreadable
		}
		return problem.New("the CA's database: %w", err).Hint(newCAHint)
	}
	if err := checkOwner(file); !foreign && err != nil {
		return err
	}
	empty := info.Size() == 0
	if info.IsDir() {
		found, err := os.ReadDir(file)
		if err != nil {
			return readError(err, "the CA's database")
		}
		empty = len(found) == 0
	}
	if empty {
		return problem.New("the CA's database: %s is empty", file).Hint(newCAHint)
	}
	return nil
}

func checkOwner(file string) error {
	other, err := foreignOwner(file)
	switch {
	case err != nil:
		return problem.New("the CA's database: %w", err)
	case other != nil:
		return other
	}
	return nil
}

// unreadable returns an OwnerError for the file that err says this user may not
// read, if it belongs to another one.
func unreadable(err error) error {
	var denied *fs.PathError
	if errors.As(err, &denied) && errors.Is(err, fs.ErrPermission) {
		if owner := ownerOf(denied.Path); owner != nil {
			return owner
		}
	}
	return nil
}

// readError says what an error in reading a file of the database means.
func readError(err error, what string) error {
	if unreadable := unreadable(err); unreadable != nil {
		return unreadable
	}
	return problem.New("%s: %w", what, err)
}

// openError says what an error in opening the database means.
func openError(cfg *db.Config, err error) error {
	var said *problem.Problem
	switch unreadable := unreadable(err); {
	case errors.As(err, &said):
		return err
	case unreadable != nil:
		return unreadable
	case isLocked(cfg, err):
		return problem.New("the CA's database %s is in use", cfg.DataSource).
			Hint("the CA is running: revoke online, without --offline, or stop it first")
	}
	return problem.New("opening the CA's database: %w", problem.Cleaned(err)).Hint(checkHint)
}

// A DB is the CA's database while it is open.
type DB struct {
	nosql.DB
	config db.Config
	direct sync.Mutex // guards server
	server *sql.DB    // beside that of package nosql; nil until it is needed
	locks  [64]sync.Mutex
}

// Open opens the CA's database, which must have passed Check. If quiet, Badger
// and the driver for MySQL do not log to standard error. Errors do not show the
// data source of a server, which may hold a password.
func Open(cfg *db.Config, quiet bool) (*DB, error) {
	if err := checkServer(cfg, quiet); err != nil {
		return nil, err
	}
	opts := []nosql.Option{nosql.WithDatabase(cfg.Database), nosql.WithValueDir(cfg.ValueDir)}
	if cfg.BadgerFileLoadingMode != "" {
		opts = append(opts, nosql.WithBadgerFileLoadingMode(cfg.BadgerFileLoadingMode))
	}
	if quiet && isBadger(cfg) {
		restore := silenceBadger()
		defer restore()
	}
	inner, err := nosql.New(cfg.Type, cfg.DataSource, opts...)
	if err != nil {
		return nil, openError(cfg, err)
	}
	opened := &DB{DB: inner, config: *cfg}
	// One of the two tables is in every step-ca database, and both are small.
	_, errCRL := inner.List([]byte(crlTable))
	_, errSSH := inner.List([]byte(sshHostsTable))
	if errCRL != nil && errSSH != nil {
		_ = opened.Close()
		return nil, problem.New("the CA's database is not one of step-ca: %w", errSSH).Hint(checkHint)
	}
	return opened, nil
}

// isLocked tells whether another process has the database open: badger says so,
// bbolt waits for five seconds and then gives up.
func isLocked(cfg *db.Config, err error) bool {
	if isBBolt(cfg) {
		return strings.HasSuffix(err.Error(), "timeout")
	}
	return strings.Contains(err.Error(), "directory lock")
}

// closeTimeout is how long a database may take to close. On a full disk it may
// take forever: badger tries again and again, and bbolt waits for a transaction
// that package nosql has not ended.
const closeTimeout = 20 * time.Second

// Close closes the database. If that takes longer than 20 seconds it returns an
// error and leaves the database closing in the background.
func (d *DB) Close() error {
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(d.DB.Close(), d.closeServer()) }()
	select {
	case err := <-closed:
		if err != nil {
			return problem.New("closing the CA's database: %w", err)
		}
		return nil
	case <-time.After(closeTimeout):
		return problem.New("the CA's database does not close").
			Hint("STEPDEBUG=1 shows what it says; step-ca repairs it when it starts")
	}
}
