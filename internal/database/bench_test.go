//go:build unix

package database

import (
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	badger2 "github.com/dgraph-io/badger/v2"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

const benchCertificates = 100_000

var sink int // keeps loops from being left out

// BenchmarkRead reads 100,000 certificates in a bare loop, and with Map. Opening
// and closing counts.
func BenchmarkRead(b *testing.B) {
	cfg := &db.Config{Type: nosql.BadgerV2Driver, DataSource: filepath.Join(b.TempDir(), "db")}
	made, err := nosql.New(cfg.Type, cfg.DataSource)
	if err == nil {
		err = errors.Join(createTables(made), store(made, 0, benchCertificates), made.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("badgerv2/bare", func(b *testing.B) { loop(b, func() (int, error) { return bareBadger(cfg.DataSource) }) })
	b.Run("badgerv2/map", func(b *testing.B) { loop(b, func() (int, error) { return mapAll(b, cfg, stopped) }) })
	b.Run("badgerv2/copy and map", func(b *testing.B) { loop(b, func() (int, error) { return mapAll(b, cfg, beside) }) })
	for _, kind := range []string{nosql.PostgreSQLDriver, nosql.MySQLDriver} {
		cfg := filledServer(b, kind, startServer(b, kind), "bench", benchCertificates)
		b.Run(kind+"/bare", func(b *testing.B) { loop(b, func() (int, error) { return bareServer(cfg) }) })
		b.Run(kind+"/map", func(b *testing.B) { loop(b, func() (int, error) { return mapAll(b, cfg, beside) }) })
	}
}

func loop(b *testing.B, read func() (int, error)) {
	for b.Loop() {
		if n, err := read(); n != benchCertificates || err != nil {
			b.Fatal(n, err)
		}
	}
}

func mapAll(b *testing.B, cfg *db.Config, how Reading) (int, error) {
	s, err := Read(b.Context(), cfg, how)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	n := 0
	for _, err = range Map(b.Context(), s, func(i *Issued) (struct{}, bool) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return struct{}{}, len(i.DER) == 0
	}) {
	}
	return n, errors.Join(err, s.Close())
}

func bareBadger(dir string) (n int, err error) {
	opened, err := badger2.Open(badger2.DefaultOptions(dir).WithLogger(nil).WithReadOnly(true))
	if err != nil {
		return 0, err
	}
	txn, prefix := opened.NewTransaction(false), badgerPart(certsTable)
	it := txn.NewIterator(badger2.IteratorOptions{Prefix: prefix})
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		if item := it.Item(); len(item.Key()) > len(prefix) {
			err = errors.Join(err, item.Value(func(value []byte) error {
				n++
				sink += int(value[0])
				return nil
			}))
		}
	}
	it.Close()
	txn.Discard()
	return n, errors.Join(err, opened.Close())
}

func bareServer(cfg *db.Config) (n int, err error) {
	conn, err := openSQL(cfg)
	if err != nil {
		return 0, err
	}
	rows, err := conn.Query("SELECT nkey, nvalue FROM x509_certs")
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		var key, value sql.RawBytes
		err = errors.Join(err, rows.Scan(&key, &value))
		n++
		sink += int(value[0])
	}
	return n, errors.Join(err, rows.Err(), conn.Close())
}
