package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	badger1 "github.com/dgraph-io/badger"
	badger2 "github.com/dgraph-io/badger/v2"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A busy is a Badger directory with small files: tables come and go all the time,
// and so do value logs.
type busy struct {
	set   func(pairs ...string) error // keys and values
	gc    func() error
	close func() error
}

func openBusy(kind, dir string) (*busy, error) {
	if kind == nosql.BadgerV1Driver {
		opened, err := badger1.Open(badger1.DefaultOptions(dir).WithLogger(nil).WithMaxTableSize(256 << 10).
			WithLevelOneSize(512 << 10).WithNumLevelZeroTables(1).WithValueLogFileSize(1 << 20).WithSyncWrites(false))
		if err != nil {
			return nil, err
		}
		return &busy{func(pairs ...string) error {
			return opened.Update(func(txn *badger1.Txn) (err error) {
				for i := 0; i < len(pairs); i += 2 {
					err = errors.Join(err, txn.Set([]byte(pairs[i]), []byte(pairs[i+1])))
				}
				return err
			})
		}, func() error { return opened.RunValueLogGC(0.01) }, opened.Close}, nil
	}
	opened, err := badger2.Open(badger2.DefaultOptions(dir).WithLogger(nil).WithMaxTableSize(256 << 10).
		WithLevelOneSize(512 << 10).WithNumLevelZeroTables(1).WithValueLogFileSize(1 << 20).WithSyncWrites(false))
	if err != nil {
		return nil, err
	}
	return &busy{func(pairs ...string) error {
		return opened.Update(func(txn *badger2.Txn) (err error) {
			for i := 0; i < len(pairs); i += 2 {
				err = errors.Join(err, txn.Set([]byte(pairs[i]), []byte(pairs[i+1])))
			}
			return err
		})
	}, func() error { return opened.RunValueLogGC(0.01) }, opened.Close}, nil
}

func badgerKey(table, key string) string { return string(badgerPart(table)) + string(badgerPart(key)) }

// busyCertificates is after how many certificates the first is written again.
const busyCertificates = 1500

// write writes the certificate number i, and something else that it replaces all
// the time, so that there is garbage.
func (b *busy) write(i int) error {
	i %= busyCertificates
	serial, der := certificate(i)
	pairs := []string{
		badgerKey(certsTable, serial), string(der),
		badgerKey("nonces", fmt.Sprint("nonce", i%10)), strings.Repeat("x", 3000),
	}
	if isRevoked(i) {
		pairs = append(pairs, badgerKey(revokedTable, serial), "{}")
	}
	return b.set(pairs...)
}

// TestBusy copies a directory that is written to all the time. Everything that
// was there when the copy began must be in it, as it was written.
func TestBusy(t *testing.T) {
	t.Parallel()
	for kind, times := range map[string]int{nosql.BadgerV1Driver: 20, nosql.BadgerV2Driver: 200} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := &db.Config{Type: kind, DataSource: t.TempDir()}
			b, err := openBusy(kind, cfg.DataSource)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.set(string(badgerPart(sshHostsTable)), ""); err != nil {
				t.Fatal(err)
			}
			var written, collected atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 2)
			go func() {
				var err error
				for i := 0; ctx.Err() == nil && err == nil; i++ {
					if err = b.write(i); err == nil {
						written.Store(int64(i + 1))
					}
				}
				done <- err
			}()
			go func() {
				for ctx.Err() == nil {
					if b.gc() == nil {
						collected.Add(1)
					}
				}
				done <- nil
			}()
			for range times {
				before := int(min(written.Load(), busyCertificates))
				s, err := Read(t.Context(), cfg, beside)
				if err != nil {
					t.Fatal(err)
				}
				n, revoked := 0, 0
				all := map[string]bool{}
				for c, err := range Map(t.Context(), s, func(i *Issued) (seen, bool) {
					return seen{serial: i.Serial, der: string(i.DER), revoked: i.Revoked}, true
				}) {
					if err != nil {
						t.Fatal(err)
					}
					all[c.serial+c.der] = true
					if n++; c.revoked {
						revoked++
					}
				}
				if n < before {
					t.Errorf("%d certificates, want %d at least", n, before)
				}
				for i := range before {
					if serial, der := certificate(i); !all[serial+string(der)] {
						t.Fatalf("%d of %d is not as it was written", i, before)
					}
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			stop()
			if err := errors.Join(<-done, <-done, b.close()); err != nil {
				t.Error(err)
			}
			t.Logf("%d certificates written, %d value logs collected", written.Load(), collected.Load())
			if collected.Load() == 0 {
				t.Error("no value log was collected")
			}
		})
	}
}

var (
	_ = fs.ErrExist
	_ = rand.IntN
	_ = os.Args
	_ = filepath.Join
	_ = problem.New
)
