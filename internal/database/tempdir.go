package database

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A tempDir is a directory that only this user can read. What is in it is removed
// as soon as its context ends, whatever is using it, and so is the directory,
// unless it is held.
type tempDir struct {
	path  string
	stop  func() bool
	mu    sync.Mutex
	held  bool
	ended bool
}

func newTempDir(ctx context.Context) (*tempDir, error) {
	path, err := os.MkdirTemp("", "step-revoke-")
	if err != nil {
		return nil, problem.New("copying the CA's database: %w", err).Hint("%s", tmpHint)
	}
	d := &tempDir{path: path}
	d.stop = context.AfterFunc(ctx, func() { _ = d.remove() })
	return d, nil
}

const tmpHint = "the variable TMPDIR names another directory for the copy"

// hold keeps the directory until release is called: Badger ends the program if
// the directory goes while it opens it (util.go, getIDMap). It returns false if
// the directory has ended.
func (d *tempDir) hold() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = !d.ended
	return d.held
}

// release removes what has come into the directory since it has ended, and the
// directory.
func (d *tempDir) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held = false; d.ended {
		_ = os.RemoveAll(d.path)
	}
}

// end does what the end of the context does.
func (d *tempDir) end() error {
	d.stop()
	return d.remove()
}

// remove removes what is in the directory, and the directory unless it is held.
func (d *tempDir) remove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if !d.held {
		return os.RemoveAll(d.path)
	}
	entries, err := os.ReadDir(d.path)
	for _, e := range entries {
		_ = os.Remove(filepath.Join(d.path, e.Name()))
	}
	return err
}
