package database

import (
	"os"
	"sync"
	"testing"

	badger "github.com/dgraph-io/badger/v2"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

const benchCertificates = 100_000

var benchDB = sync.OnceValues(func() (*db.Config, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	cfg := &db.Config{Type: nosql.BadgerV2Driver, DataSource: dir}
	made, err := nosql.New(cfg.Type, cfg.DataSource)
	if err != nil {
		return nil, err
	}
	if err := createTables(made); err != nil {
		return nil, err
	}
	var w sync.WaitGroup
	for i := range 64 {
		w.Go(func() {
			if e := store(made, benchCertificates*i/64, benchCertificates*(i+1)/64); e != nil {
				err = e
			}
		})
	}
	w.Wait()
	if err != nil {
		return nil, err
	}
	return cfg, made.Close()
})

var sink int

// BenchmarkBareBadger reads every certificate in a bare loop, the database opened
// and closed included.
func BenchmarkBareBadger(b *testing.B) {
	cfg, err := benchDB()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		opened, err := badger.Open(badger.DefaultOptions(cfg.DataSource).WithLogger(nil).WithReadOnly(true))
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		err = opened.View(func(txn *badger.Txn) error {
			prefix := badgerPart(certsTable)
			it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: os.Getenv("PREFETCH") != "", PrefetchSize: 100})
			defer it.Close()
			for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
				n++
				if err := it.Item().Value(func(v []byte) error {
					if len(v) > 0 {
						sink += int(v[0])
					}
					return nil
				}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n != benchCertificates+1 {
			b.Fatal(n, err)
		}
		if err := opened.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchMap(b *testing.B, how Reading) {
	cfg, err := benchDB()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Read(b.Context(), cfg, how)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for range Map(b.Context(), s, func(i *Issued) (struct{}, bool) { return struct{}{}, i.DER[0] == 0 }) {
			n++
		}
		sink += n
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMap reads every certificate with Map.
func BenchmarkMap(b *testing.B) { benchMap(b, stopped) }

// BenchmarkCopyAndMap makes a copy before.
func BenchmarkCopyAndMap(b *testing.B) { benchMap(b, beside) }
