//go:build unix

package database

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/smallstep/certificates/db"
)

// TestOwner gives files away if root runs it, and takes one of root's if not.
func TestOwner(t *testing.T) {
	t.Parallel()
	const uid = 54321 // which has no name
	dir := t.TempDir()
	file := filepath.Join(dir, "MANIFEST")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, want := &db.Config{Type: "badgerv2", DataSource: dir}, OwnerError{Path: file, Owner: "#54321"}
	if os.Geteuid() != 0 {
		cfg, want = &db.Config{Type: "bbolt", DataSource: "/etc/passwd"}, OwnerError{Path: "/etc/passwd", Owner: "root"}
	} else if err := os.Chown(file, uid, -1); err != nil {
		t.Fatal(err)
	}
	err := Check(cfg)
	var foreign *OwnerError
	if !errors.As(err, &foreign) || *foreign != want {
		t.Fatalf("%#v, want %+v", err, want)
	}
	if text := "the CA's database belongs to another user: " + want.Path + " is owned by " + want.Owner; err.Error() != text {
		t.Errorf("%q, want %q", err, text)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(cfg.DataSource, link); err != nil {
		t.Fatal(err)
	}
	cfg.DataSource = link
	if err := Check(cfg); !errors.As(err, &foreign) || *foreign != want {
		t.Errorf("through a link: %#v, want %+v", err, want)
	}
}
