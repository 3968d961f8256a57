package database

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

// inFiles opens a new database of each type that is in files.
func inFiles(t *testing.T, test func(*testing.T, *DB)) {
	t.Helper()
	for _, kind := range []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver, nosql.BBoltDriver} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := &db.Config{Type: kind, DataSource: filepath.Join(t.TempDir(), "db")}
			if err := create(cfg); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(cfg, false) // quiet, it changes os.Stderr for all
			if err != nil {
				t.Fatal(err)
			}
			test(t, opened)
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReplace replaces and removes records. One that has changed, or is gone, stays
// as it is.
func TestReplace(t *testing.T) {
	t.Parallel()
	inFiles(t, func(t *testing.T, d *DB) {
		for _, tt := range []struct{ stored, was, now, want string }{
			{"a", "a", "b", "b"},
			{"a", "b", "c", "a"},
			{"", "a", "b", ""},
			{"a", "a", "", ""},
			{"a", "b", "", "a"},
			{"", "a", "", ""},
		} {
			key := []byte("42")
			if err := d.Del(revoked, key); err != nil {
				t.Fatal(err)
			}
			if tt.stored != "" {
				if err := d.Set(revoked, key, []byte(tt.stored)); err != nil {
					t.Fatal(err)
				}
			}
			var now []byte
			if tt.now != "" {
				now = []byte(tt.now)
			}
			did, err := d.Replace("42", []byte(tt.was), now)
			if err != nil || did != (tt.stored == tt.was) {
				t.Errorf("%+v: %t, %v", tt, did, err)
			}
			if got, err := d.Get(revoked, key); err != nil && !nosql.IsErrNotFound(err) || string(got) != tt.want {
				t.Errorf("%+v: %q is stored, %v", tt, got, err)
			}
		}
	})
}

// TestReplaceAtOnce has many change one record at once: one succeeds.
func TestReplaceAtOnce(t *testing.T) {
	t.Parallel()
	inFiles(t, func(t *testing.T, d *DB) {
		for range 10 {
			if err := d.Set(revoked, []byte("42"), []byte("hold")); err != nil {
				t.Fatal(err)
			}
			var won atomic.Int32
			var group sync.WaitGroup
			errs := make([]error, 20)
			for i := range errs {
				var now []byte
				if i%2 == 0 {
					now = []byte("for good")
				}
				group.Go(func() {
					did, err := d.Replace("42", []byte("hold"), now)
					if errs[i] = err; did {
						won.Add(1)
					}
				})
			}
			group.Wait()
			if err := errors.Join(errs...); err != nil || won.Load() != 1 {
				t.Errorf("%d have succeeded, %v", won.Load(), err)
			}
		}
	})
}
