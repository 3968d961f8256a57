package database

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	"golang.org/x/sys/unix"
)

// TestUnreadable reads files of somebody else: what may be read is read, and what
// may not is an OwnerError.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		_, err := Read(t.Context(), &db.Config{Type: nosql.BadgerV2Driver, DataSource: "/root/db"}, beside)
		checkUnreadable(t, err, OwnerError{Path: "/root", Owner: "root", Unreadable: true})
		return
	}
	const owner, reader = 54321, 54322 // which have no names
	cfg := filled(t, nosql.BadgerV2Driver, 10)
	manifest := filepath.Join(cfg.DataSource, manifestName)
	tables, _ := filepath.Glob(filepath.Join(cfg.DataSource, "*.sst"))
	all, _ := filepath.Glob(filepath.Join(cfg.DataSource, "*"))
	for _, path := range append(all, cfg.DataSource) {
		if err := errors.Join(os.Chown(path, owner, owner), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Read(t.Context(), cfg, beside)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, s, 10)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Read(t.Context(), cfg, stopped); err == nil || err.Error() != "the CA's database belongs to another user: "+cfg.DataSource+" is owned by #54321" {
		t.Errorf("without a copy: %v", err)
	}
	to := t.TempDir()
	above := filepath.Dir(filepath.Dir(cfg.DataSource))
	if err := errors.Join(os.Chown(to, reader, -1), os.Chmod(filepath.Dir(to), 0o755), os.Chmod(above, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ closed, named string }{
		{cfg.DataSource, cfg.DataSource}, {manifest, manifest}, {tables[0], tables[0]},
	} {
		if err := os.Chmod(tt.closed, 0o600); err != nil {
			t.Fatal(err)
		}
		err := as(reader, func() error {
			if err := check(cfg, true); err != nil {
				return err
			}
			return newCopier(cfg, to).run(t.Context())
		})
		checkUnreadable(t, err, OwnerError{Path: tt.named, Owner: "#54321", Unreadable: true})
		if err := os.Chmod(tt.closed, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func checkUnreadable(t *testing.T, err error, want OwnerError) {
	t.Helper()
	var got *OwnerError
	if !errors.As(err, &got) || *got != want {
		t.Errorf("%#v, want %+v", err, want)
	} else if text := "the CA's database cannot be read: " + want.Path + " belongs to " + want.Owner; err.Error() != text {
		t.Errorf("%q, want %q", err, text)
	}
}

// as has a step reach files as another user, of which only this thread knows.
func as(uid int, step func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setfsuid(uid); err != nil {
			done <- err
			return
		}
		done <- step()
	}()
	return <-done
}
