package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	badger1 "github.com/dgraph-io/badger"
	badger2 "github.com/dgraph-io/badger/v2"
	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A copier copies a Badger directory beside the CA that writes to it, into one
// directory.
//
// Badger (db.go, value.go, levels.go and manifest.go of both versions) appends
// every write to the newest value log before it acknowledges it. The tables
// (.sst) hold what was written up to a position of the value log, which they
// name, and MANIFEST names the tables. From that position on the value log is
// read again when a directory is opened. So a copy has everything that was
// acknowledged before it began if it is of
//
//  1. the value logs but the newest. They are complete and do not change any
//     more. The collection of garbage removes some, but only when what was left
//     in them is written to the newest.
//  2. MANIFEST, which is appended to, or replaced by a rename. An incomplete end
//     is cut off. MANIFEST-REWRITE, of which it is made, is nothing yet.
//  3. the tables that this MANIFEST names. They are complete before it names
//     them and never change. Compaction removes them, but only when MANIFEST
//     says so.
//  4. the value logs that have come since 1, and the newest, of which alone the
//     end may be incomplete.
//  5. KEYREGISTRY of v2, which has its keys before anything is encrypted with
//     them.
//
// If a file of 3 or 4 is gone before it is copied, all begins again, but for what
// is complete and copied already.
//
// What is in a value log twice, or beyond what the tables of the copy have, does
// no harm: every entry has its time.
type copier struct {
	cfg  *db.Config
	to   string
	free func(dir string) (uint64, error) // bytes
	done map[string]fs.FileInfo           // complete files that are copied
}

func newCopier(cfg *db.Config, to string) *copier {
	return &copier{cfg: cfg, to: to, free: freeBytes, done: map[string]fs.FileInfo{}}
}

// copyAttempts is how often MANIFEST is copied at most. Each time only what is new
// is left to copy.
const copyAttempts = 100

// errMoved says that the CA has changed what was being copied.
var errMoved = errors.New("the CA has changed it meanwhile")

const (
	manifestName = "MANIFEST"
	registryName = "KEYREGISTRY"
	tableSuffix  = ".sst"
	logSuffix    = ".vlog"
)

// run makes the copy, or the room for it is missing, or a file cannot be read.
func (c *copier) run(ctx context.Context) (err error) {
	if err := c.checkRoom(); err != nil {
		return err
	}
	for range copyAttempts {
		if err = c.attempt(ctx); !errors.Is(err, errMoved) {
			break
		}
	}
	if err == nil || errors.Is(err, problem.ErrInterrupted) {
		return err
	}
	if errors.Is(err, errMoved) {
		return problem.New("copying the CA's database: %w", err).
			Hint("either the CA is very busy, or its database is damaged: stop the CA and use --offline")
	}
	if isFull(err) {
		return problem.New("copying the CA's database: %w", err).Hint("%s", tmpHint)
	}
	return readError(err, "copying the CA's database")
}

func (c *copier) valueDir() string {
	if c.cfg.ValueDir != "" {
		return c.cfg.ValueDir
	}
	return c.cfg.DataSource
}

// settlingBytes is the room that Badger may take to store what is only in the
// value log of the copy; less if the value log is smaller.
const (
	settlingBytes = 128 * mebibyte
	mebibyte      = 1 << 20
)

// checkRoom makes sure that there is room for the copy.
func (c *copier) checkRoom() error {
	var size, logs uint64
	for _, part := range []struct{ dir, suffix string }{
		{c.cfg.DataSource, manifestName}, {c.cfg.DataSource, tableSuffix}, {c.valueDir(), logSuffix},
	} {
		entries, err := os.ReadDir(part.dir)
		if err != nil {
			return readError(err, "reading the CA's database")
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), part.suffix) {
				size += uint64(info.Size())
				if part.suffix == logSuffix {
					logs += uint64(info.Size())
				}
			}
		}
	}
	size += min(logs, settlingBytes)
	free, err := c.free(c.to)
	if err == nil && free < size {
		return problem.New("%s has no room for a copy of the CA's database: it needs %d MiB, and %d MiB are free",
			filepath.Dir(c.to), (size+mebibyte-1)/mebibyte, free/mebibyte).Hint("%s", tmpHint)
	}
	return nil
}

// attempt makes the copy, but for what is copied already.
func (c *copier) attempt(ctx context.Context) error {
	before, err := c.logs()
	if err != nil {
		return err
	}
	for _, name := range before[:max(len(before)-1, 0)] {
		if err := c.complete(ctx, c.valueDir(), name); err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	tables, err := c.manifest(ctx)
	if err != nil {
		return err
	}
	for _, name := range tables {
		if err := c.complete(ctx, c.cfg.DataSource, name); err != nil {
			return err
		}
	}
	if err := c.newLogs(ctx, before); err != nil {
		return err
	}
	_, err = c.file(ctx, c.cfg.DataSource, registryName)
	if errors.Is(err, errMoved) { // v1 has none
		return nil
	}
	return err
}

// newLogs copies the value logs that are new, and the newest.
func (c *copier) newLogs(ctx context.Context, before []string) error {
	logs, err := c.logs()
	if err != nil || len(logs) == 0 {
		return err
	}
	last := len(logs) - 1
	for _, name := range logs[:last] {
		if err := c.complete(ctx, c.valueDir(), name); err != nil {
			return err
		}
	}
	if len(before) > 0 {
		if was := before[len(before)-1]; was != logs[last] && c.done[was] == nil {
			return fmt.Errorf("%s: %w", was, errMoved)
		}
	}
	_, err = c.file(ctx, c.valueDir(), logs[last])
	return err
}

// logs returns the names of the value logs, oldest first.
func (c *copier) logs() ([]string, error) {
	entries, err := os.ReadDir(c.valueDir())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), logSuffix) {
			names = append(names, e.Name())
		}
	}
	sort.Slice(names, func(i, j int) bool { // by number, of six digits or more
		if len(names[i]) != len(names[j]) {
			return len(names[i]) < len(names[j])
		}
		return names[i] < names[j]
	})
	return names, nil
}

// manifest copies MANIFEST and returns the names of the tables in it.
func (c *copier) manifest(ctx context.Context) ([]string, error) {
	if _, err := c.file(ctx, c.cfg.DataSource, manifestName); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(c.to, manifestName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	ids, end, err := tableIDs(file, isBadger2(c.cfg))
	if err != nil { // an end that is half written reads as one that is wrong
		return nil, fmt.Errorf("%s: %w: %w", manifestName, errMoved, err)
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = tableName(id)
	}
	return names, file.Truncate(end)
}

func tableName(id uint64) string { return fmt.Sprintf("%06d%s", id, tableSuffix) }

// tableIDs returns the numbers of the tables that a manifest names, in order, and
// where the last complete entry ends.
func tableIDs(manifest *os.File, v2 bool) (ids []uint64, end int64, err error) {
	if v2 {
		var m badger2.Manifest
		m, end, err = badger2.ReplayManifestFile(manifest)
		for id := range m.Tables {
			ids = append(ids, id)
		}
	} else {
		var m badger1.Manifest
		m, end, err = badger1.ReplayManifestFile(manifest)
		for id := range m.Tables {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, end, err
}

// complete copies a file that does not change any more, unless it has been copied
// before. A table that Badger removes becomes empty first.
func (c *copier) complete(ctx context.Context, dir, name string) error {
	now, err := os.Stat(filepath.Join(dir, name))
	was := c.done[name]
	if was != nil && (errors.Is(err, fs.ErrNotExist) || err == nil && isSame(was, now)) {
		return nil
	}
	if was, err = c.file(ctx, dir, name); err != nil {
		return err
	}
	if now, err = os.Stat(filepath.Join(dir, name)); err != nil || !isSame(was, now) || now.Size() == 0 {
		return fmt.Errorf("%s: %w", name, errMoved)
	}
	c.done[name] = was
	return nil
}

func isSame(was, now fs.FileInfo) bool {
	return os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime())
}

// chunk is how many bytes are copied between two looks at the context.
const chunk = 8 << 20

// file copies a file as long as it is when it is opened, and returns what it was
// then. It returns errMoved if the file is not there or becomes shorter.
func (c *copier) file(ctx context.Context, dir, name string) (fs.FileInfo, error) {
	from, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, errMoved)
	}
	if err != nil {
		return nil, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return nil, err
	}
	to, err := os.OpenFile(filepath.Join(c.to, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	for left := info.Size(); left > 0 && err == nil; left -= chunk {
		if ctx.Err() != nil {
			err = problem.ErrInterrupted
		} else if _, err = io.CopyN(to, from, min(left, chunk)); errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s: %w", name, errMoved)
		}
	}
	return info, errors.Join(err, to.Close())
}

// interrupted returns ErrInterrupted in the place of an error after ctx has ended,
// and with it the directory of the copy.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return problem.ErrInterrupted
	}
	return err
}
