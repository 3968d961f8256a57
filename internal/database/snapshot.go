package database

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/smallstep/certificates/db"
	nosqldb "github.com/smallstep/nosql/database"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Tables of step-ca (db/db.go). One of crlTable and sshHostsTable is in every
// database of step-ca, and both are small.
const (
	certsTable     = "x509_certs"
	certsDataTable = "x509_certs_data"
	revokedTable   = "revoked_x509_certs"
	crlTable       = "x509_crl"
	sshHostsTable  = "ssh_hosts"
)

// maxValue is how many bytes the value of a record may have.
const maxValue = 1 << 20

// errNoValue is what reading any other is.
var errNoValue = problem.New("the record's value is missing, or larger than 1 MiB")

// A Reading says how a database is read.
type Reading struct {
	// Beside says that the CA may be running. What is in files is then read from
	// a copy; bbolt cannot be read.
	Beside bool
	// Quiet keeps what Badger and the driver for MySQL log off standard error.
	Quiet bool
	// Timeout is how long a database server may take to connect, and then
	// without any progress.
	Timeout time.Duration
}

// A Snapshot is the CA's database as it was at one moment. It ends with the
// context it was made in: what it is asked for afterwards may be an error.
type Snapshot struct {
	ctx    context.Context
	source source
	busy   sync.WaitGroup // goroutines that use source
	copied *tempDir       // that holds the copy, or nil
}

// A source is a database of one type, open for reading. It is safe for use by
// several goroutines, but for a server's, which answers one request at a time
// and fails the others.
type source interface {
	// each calls fn for every certificate; the row is only valid in the call.
	each(ctx context.Context, fn func(*row) error) error
	// scan calls fn for every entry of a table, with an empty value unless those
	// are asked for. Both are only valid in the call.
	scan(ctx context.Context, table string, values bool, fn func(key, value []byte) error) error
	// get returns nil if there is no such entry or table.
	get(ctx context.Context, table, key string) ([]byte, error)
	has(ctx context.Context, table string) (bool, error)
	close() error
}

// A row is what the tables have of one certificate.
type row struct {
	key, der []byte
	err      error // why there is no der
	revoked  bool
	data     []byte // of x509_certs_data, where it comes with the row
}

// Read opens the CA's database for reading. Nothing is written to the original,
// with one exception: without Beside, Badger is opened as step-ca opens it if it
// was not closed properly. The database must be the CA's as in Check; with Beside
// it may belong to another user. An error may be an OwnerError. It opens nothing
// of bbolt beside a CA.
func Read(ctx context.Context, cfg *db.Config, how Reading) (*Snapshot, error) {
	if err := check(cfg, how.Beside); err != nil {
		return nil, err
	}
	if how.Beside && isBBolt(cfg) {
		return nil, problem.New("the CA's database is of the type bbolt, which cannot be read while the CA is running").
			Hint("stop the CA and use --offline")
	}
	s := &Snapshot{ctx: ctx}
	var err error
	if isBadger(cfg) && how.Beside {
		if s.copied, err = newTempDir(ctx); err != nil {
			return nil, err
		}
	}
	if err = s.background(ctx, func() error { return s.open(cfg, how) }); err == nil {
		err = s.checkOurs()
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// open opens the source.
func (s *Snapshot) open(cfg *db.Config, how Reading) error {
	var opened source
	var err error
	switch {
	case !InFiles(cfg):
		opened, err = openServer(s.ctx, cfg, how)
	case isBBolt(cfg):
		opened, err = openBBolt(cfg)
	default:
		from := *cfg
		if s.copied != nil {
			if !s.copied.hold() {
				return problem.ErrInterrupted
			}
			defer s.copied.release()
			if err := newCopier(cfg, s.copied.path).run(s.ctx); err != nil {
				return err
			}
			from.DataSource, from.ValueDir = s.copied.path, s.copied.path
		}
		opened, err = openBadger(s.ctx, &from, s.copied != nil, how.Quiet)
	}
	if err != nil {
		return err
	}
	s.source = opened
	return nil
}

// background runs a step that ctx may not be able to end. Until the step has
// ended, the source stays open.
func (s *Snapshot) background(ctx context.Context, step func() error) error {
	done := make(chan error, 1)
	s.busy.Go(func() { done <- guarded(step) })
	select {
	case err := <-done:
		if ctx.Err() != nil {
			return problem.ErrInterrupted
		}
		return err
	case <-ctx.Done():
		return problem.ErrInterrupted
	}
}

// checkOurs makes sure that the database is one of step-ca.
func (s *Snapshot) checkOurs() error {
	return s.background(s.ctx, func() error {
		for _, table := range []string{crlTable, sshHostsTable} {
			if has, err := s.source.has(s.ctx, table); has || err != nil {
				return err
			}
		}
		return problem.New("the CA's database is not one of step-ca: it has no table %s", sshHostsTable).Hint(checkHint)
	})
}

// interruptedGrace is how long Close waits after the context has ended: a little
// less than the process has.
const interruptedGrace = 4 * time.Second

// Close removes the copy, if there is one, and closes the database. If that takes
// longer than 20 seconds, or than 4 since the context has ended, the database is
// left closing in the background.
func (s *Snapshot) Close() error {
	closed := make(chan error, 1)
	if s.copied != nil {
		_ = s.copied.end()
	}
	go func() { closed <- s.close() }()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(s.ctx, func() { time.AfterFunc(interruptedGrace, func() { close(interrupted) }) })
	defer stop()
	select {
	case err := <-closed:
		if err != nil {
			return problem.New("closing the CA's database: %w", err)
		}
		return nil
	case <-interrupted:
		if s.copied != nil {
			_ = s.copied.end() // an empty directory is left if Badger is still opening it
		}
		return problem.ErrInterrupted
	case <-time.After(closeTimeout):
		return problem.New("the CA's database does not close").
			Hint("STEPDEBUG=1 shows what it says; step-ca repairs it when it starts")
	}
}

// close closes the database when nothing uses it any more.
func (s *Snapshot) close() (err error) {
	s.busy.Wait()
	if s.source != nil {
		err = s.source.close()
	}
	if s.copied != nil { // Badger misses the directory, and Windows has not removed what was open
		err = s.copied.end()
	}
	return err
}

// Issued is a certificate on record. It is only valid while look (Map) runs.
type Issued struct {
	Serial  string // the key of its record, as it stands there: a decimal number, if step-ca has made it
	DER     []byte // as it stands there; nothing has checked it
	Err     error  // why there is no DER: the record is damaged, or has more than 1 MiB
	Revoked bool   // revoked_x509_certs has this key
	data    []byte
	from    *Snapshot
}

// Provisioner returns the ID and the name of the provisioner that the CA has
// recorded beside the certificate (x509_certs_data). They are empty where there
// is no such record, as for what step-ca before 0.20 has issued, and for one that
// cannot be read as JSON.
func (i *Issued) Provisioner() (id, name string, err error) {
	data := i.data
	if data == nil {
		data, err = i.from.get(certsDataTable, i.Serial)
	}
	if err != nil || len(data) == 0 {
		return "", "", err
	}
	var record struct {
		Provisioner struct{ ID, Name string }
	}
	if json.Unmarshal(data, &record) != nil {
		return "", "", nil
	}
	return record.Provisioner.ID, record.Provisioner.Name, nil
}

// Certificate returns the certificate with this serial number, in decimal; nil if
// there is none. While Map runs, a database server does not answer.
func (s *Snapshot) Certificate(serial string) (der []byte, err error) {
	return s.get(certsTable, serial)
}

func (s *Snapshot) get(table, key string) (value []byte, err error) {
	err = guarded(func() (err error) {
		value, err = s.source.get(s.ctx, table, key)
		return err
	})
	if err != nil {
		return nil, problem.Wrap(err, "reading %s in the CA's database", table)
	}
	return value, nil
}

const (
	maxStrays   = 10_000 // keys
	maxStrayKey = 256    // bytes
)

// Strays returns how many records of revocations have a key that is no decimal
// serial number, and the first 10,000 of these keys, each cut after 256 bytes.
// They revoke nothing: step-ca before 0.22 accepted any text as a serial number.
func (s *Snapshot) Strays(ctx context.Context) (int, []string, error) {
	var n int
	var keys []string
	err := s.background(ctx, func() error {
		return s.source.scan(ctx, revokedTable, false, func(key, _ []byte) error {
			if ctx.Err() != nil {
				return problem.ErrInterrupted
			}
			if isDecimal(key) {
				return nil
			}
			if n++; n <= maxStrays {
				keys = append(keys, string(key[:min(len(key), maxStrayKey)]))
			}
			return nil
		})
	})
	if err != nil {
		return 0, nil, err // and leave n and keys to the scan, which may go on
	}
	return n, keys, nil
}

// isDecimal tells whether a key is a number as step-ca writes it: in decimal,
// without a sign or leading zeros.
func isDecimal(key []byte) bool {
	for _, c := range key {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(key) > 0 && (key[0] != '0' || len(key) == 1)
}

// DB returns the snapshot as a database in which only Get and List work. All
// else is an error, but for CreateTable, which does nothing, and for Close, which
// leaves the snapshot open.
func (s *Snapshot) DB() *DB {
	return &DB{DB: readOnly{NotSupportedDB: &nosqldb.NotSupportedDB{}, from: s}}
}

type readOnly struct {
	*nosqldb.NotSupportedDB
	from *Snapshot
}

// CreateTable does nothing.
func (readOnly) CreateTable([]byte) error { return nil }

// Close does nothing.
func (readOnly) Close() error { return nil }

// Get returns a value.
func (r readOnly) Get(table, key []byte) ([]byte, error) {
	value, err := r.from.get(string(table), string(key))
	if err == nil && value == nil {
		err = nosqldb.ErrNotFound
	}
	return value, err
}

// List returns a table.
func (r readOnly) List(table []byte) ([]*nosqldb.Entry, error) {
	var entries []*nosqldb.Entry
	s := r.from
	err := s.background(s.ctx, func() error {
		if has, err := s.source.has(s.ctx, string(table)); err != nil || !has {
			return cmp.Or(err, nosqldb.ErrNotFound)
		}
		return s.source.scan(s.ctx, string(table), true, func(key, value []byte) error {
			entries = append(entries, &nosqldb.Entry{Bucket: table, Key: bytes.Clone(key), Value: bytes.Clone(value)})
			return s.ctx.Err()
		})
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}
