package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	for kind, times := range map[string]int{nosql.BadgerV1Driver: 10, nosql.BadgerV2Driver: 50} {
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

// damage changes files of a database.
func damage(t *testing.T, cfg *db.Config, random *rand.Rand) {
	t.Helper()
	names := []string{cfg.DataSource}
	if found, _ := filepath.Glob(filepath.Join(cfg.DataSource, "*")); len(found) > 0 {
		names = found
	}
	name := names[random.IntN(len(names))]
	content, err := os.ReadFile(name)
	if err == nil && len(content) > 0 {
		at := random.IntN(len(content))
		if random.IntN(2) == 0 {
			content = content[:at]
		} else {
			content[at] ^= 1 << random.IntN(8)
		}
		err = os.WriteFile(name, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamaged reads databases in which a file is cut off, or has a wrong bit.
// That is an error, or some certificates are missing, or one is not what it was.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			good := filled(t, kind, 300)
			want := map[string]string{}
			for i := range 300 {
				serial, der := certificate(i)
				want[serial] = string(der)
			}
			random := rand.New(rand.NewPCG(1, 2))
			failed, missing, wrong := 0, 0, 0
			for range 60 {
				cfg := &db.Config{Type: kind, DataSource: filepath.Join(t.TempDir(), "db")}
				if kind == nosql.BBoltDriver {
					content, err := os.ReadFile(good.DataSource)
					if err := errors.Join(err, os.WriteFile(cfg.DataSource, content, 0o600)); err != nil {
						t.Fatal(err)
					}
				} else if err := os.CopyFS(cfg.DataSource, os.DirFS(good.DataSource)); err != nil {
					t.Fatal(err)
				}
				damage(t, cfg, random)
				for _, how := range []Reading{beside, stopped} {
					s, err := Read(t.Context(), cfg, how)
					n := 0
					if err == nil {
						for c, e := range Map(t.Context(), s, look) {
							if err = e; err == nil {
								if n++; c.err == nil && c.der != want[c.serial] {
									wrong++
								}
							}
						}
						_, _, e := s.Strays(t.Context())
						err = errors.Join(err, e, s.Close())
					}
					switch {
					case err != nil:
						failed++
					case n < 300:
						missing++
					}
				}
			}
			t.Logf("%d errors, %d with less, %d wrong", failed, missing, wrong)
			if failed == 0 {
				t.Error("no error")
			}
		})
	}
}

// state describes the files of a directory: names, sizes, times and contents.
func state(t *testing.T, dir string) (files map[string]string) {
	t.Helper()
	files = map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		if !d.IsDir() {
			content, err := os.ReadFile(path)
			files[path] += string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// killed makes a directory as a CA leaves it that is killed: with certificates
// that are only in the value log, which is in a directory of its own.
func killed(t *testing.T, kind string, n int) *db.Config {
	t.Helper()
	live, dead := t.TempDir(), t.TempDir()
	made, err := nosql.New(kind, filepath.Join(live, "db"), nosql.WithValueDir(filepath.Join(live, "values")))
	if err == nil {
		err = errors.Join(createTables(made), store(made, 0, n), os.CopyFS(filepath.Join(dead, "db"), os.DirFS(filepath.Join(live, "db"))),
			os.CopyFS(filepath.Join(dead, "values"), os.DirFS(filepath.Join(live, "values"))), made.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return &db.Config{Type: kind, DataSource: filepath.Join(dead, "db"), ValueDir: filepath.Join(dead, "values")}
}

// TestTornEnd reads what a CA has left that was killed while it was writing. The
// end is cut off in a copy, never in the original.
func TestTornEnd(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, torn := range []string{"", "\x40", strings.Repeat("\x40\x01", 500), strings.Repeat("\x00", 5000)} {
				cfg := killed(t, kind, 100)
				cfg.BadgerFileLoadingMode = "FileIO"
				log, err := os.OpenFile(filepath.Join(cfg.ValueDir, "000000.vlog"), os.O_APPEND|os.O_WRONLY, 0)
				if err == nil {
					_, err = log.WriteString(torn)
				}
				if err := errors.Join(err, log.Close()); err != nil {
					t.Fatal(err)
				}
				before := state(t, filepath.Dir(cfg.DataSource))
				s, err := Read(t.Context(), cfg, beside)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, s, 100)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if after := state(t, filepath.Dir(cfg.DataSource)); !maps.Equal(before, after) {
					t.Errorf("%q: the original has changed", torn)
				}
				s, err = Read(t.Context(), cfg, stopped)
				if torn != "" {
					if err == nil || !strings.HasPrefix(err.Error(), "opening the CA's database: ") {
						t.Errorf("%q: %v", torn, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				compare(t, s, 100)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestOriginal shows that a directory is read beside whoever has it open, and
// that nothing in it changes, nor is anything in the copy readable by others.
func TestOriginal(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := filled(t, kind, 300)
			open, err := nosql.New(kind, cfg.DataSource)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Read(t.Context(), cfg, stopped); err == nil || err.Error() != "the CA's database "+cfg.DataSource+" is in use" {
				t.Errorf("without a copy: %v", err)
			}
			if err := store(open, 300, 310); err != nil {
				t.Fatal(err)
			}
			before := state(t, cfg.DataSource)
			s, err := Read(t.Context(), cfg, beside)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, s, 310)
			for path := range state(t, s.copied.path) {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && path != filepath.Join(s.copied.path, "LOCK") && info.IsDir() {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if after := state(t, cfg.DataSource); !maps.Equal(before, after) {
				t.Error("the original has changed")
			}
			if _, err := os.Stat(s.copied.path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the copy: %v", err)
			}
			if err := open.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoRoom copies to a disk without room.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	cfg := filled(t, nosql.BadgerV2Driver, 2000)
	c := newCopier(cfg, filepath.Join(t.TempDir(), "copy"))
	c.free = func(string) (uint64, error) { return 3<<20 + 5, nil }
	err := c.run(t.Context())
	want := filepath.Dir(c.to) + " has no room for a copy of the CA's database: it needs 6 MiB, and 3 MiB are free"
	if err == nil || err.Error() != want || strings.Join(problem.Hints(err), "") != tmpHint {
		t.Errorf("%v, want %s", err, want)
	}
	if free, err := freeBytes(t.TempDir()); free == 0 || err != nil {
		t.Errorf("%d, %v", free, err)
	}
}

// TestInterruptedCopy ends the context at any time. TestMain makes sure that no
// copy is left.
func TestInterruptedCopy(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver} {
		cfg := killed(t, kind, 1000)
		for i := range 40 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
			syscall.ForkLock.RLock() // a server that another test just starts would hold Badger's lock for a moment
			s, err := Read(ctx, cfg, beside)
			if err == nil {
				for _, e := range Map(ctx, s, look) {
					err = e
				}
				_ = s.Close()
			}
			syscall.ForkLock.RUnlock()
			if err != nil && !errors.Is(err, problem.ErrInterrupted) {
				t.Errorf("%s: %v", kind, err)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	dir, err := newTempDir(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := newCopier(killed(t, nosql.BadgerV2Driver, 1), dir.path)
	c.free = func(string) (uint64, error) {
		cancel()
		return 1 << 40, nil
	}
	if err := c.run(ctx); !errors.Is(err, problem.ErrInterrupted) {
		t.Errorf("%v", err)
	}
}
