// Package journal is the record of a batch on disk: JSON lines, first a header,
// then the outcomes in the order of their arrival. Each line is handed to the
// system before the next outcome is looked at, so that killing the process loses
// at most what was in flight, and is on the disk within a second, which is what a
// power failure can lose. A journal is locked while it is open.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// version is that of the format.
const version = 1

const (
	// AnotherHint is for a journal that is about something else.
	AnotherHint = "use another journal: a certificate that is already revoked is not a failure"
	newNameHint = "name a file that does not exist yet"
	ownFileHint = "a journal is a regular file of yours that others cannot write"
)

// Patience is how long Open waits for another run that holds the journal open: longer
// than a program takes to end after a signal. Through step it goes on after step has
// ended, and somebody who repeats the command at once meets it.
const Patience = 6 * time.Second

const (
	lockInterval = 50 * time.Millisecond // between two looks
	maxOpens     = 3                     // of a journal that another run removes each time
)

// errRemoved says that another run has removed the journal: it came to nothing.
var errRemoved = errors.New("another run has just removed it")

// A Header is the first line of a journal: what it is about, and who began it.
// The README documents it.
type Header struct {
	Journal       int      `json:"journal"` // set by Begin
	CA            string   `json:"ca"`
	Root          string   `json:"rootFingerprint"`
	ReasonCode    int      `json:"reasonCode"`
	ReasonName    string   `json:"reasonName"`
	Reason        string   `json:"reason,omitempty"`
	Time          string   `json:"time"`
	AuthorizedBy  string   `json:"authorizedBy"`
	User          string   `json:"user"`
	Host          string   `json:"host"`
	Version       string   `json:"version"`
	Targets       int      `json:"targets"`
	Where         []string `json:"where,omitempty"` // the query that has chosen them
	TargetsDigest string   `json:"targetsDigest"`
}

// A Journal is open, and locked unless it is only read. A nil Journal has
// nothing in it and takes everything without writing it.
type Journal struct {
	file     *os.File
	isNew    bool
	readOnly bool
	end      int64 // of the last line that counts
	found    Found
	sync     syncer
}

// Found is what a journal had in it when it was opened.
type Found struct {
	Header       *Header   // nil if nothing was in it
	Done         int       // targets that it says are revoked, or released
	Since        time.Time // when the first of them was
	OtherTargets bool      // it was begun for another list of targets, and not for a part of this one
	Damaged      int       // lines that were passed over: a power failure has left gaps in them
}

// Found returns what the journal had in it when it was opened.
func (j *Journal) Found() Found {
	if j == nil {
		return Found{}
	}
	return j.found
}

// Recount counts the targets that are done again, after somebody who knows better
// than the journal has cleared the Done of some.
func (j *Journal) Recount(list *target.List) {
	j.found.Done = 0
	for i := range list.All {
		if list.All[i].Done {
			j.found.Done++
		}
	}
}

// Open opens a journal, or makes it, and marks the targets as done that it says
// are revoked. Nothing is written yet. An error of agree, which sees the header
// of a journal that is there, is passed on. Without a name, and for a file that
// is only to be read and does not exist, Open returns nil. One that another run
// holds open is waited for, up to Patience, after a call of busy; if that is nil,
// it is not waited for.
func Open(ctx context.Context, name string, readOnly bool, list *target.List, agree func(*Header) error, busy func()) (*Journal, error) {
	if name == "" {
		return nil, nil
	}
	j := &Journal{readOnly: readOnly}
	err := error(errRemoved)
	for tries := 0; tries < maxOpens && errors.Is(err, errRemoved); tries++ {
		err = j.openFile(name)
		switch {
		case readOnly && errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, problem.New("opening the journal: %w", err).Hint(ownFileHint)
		}
		if err = j.check(ctx, name, busy); errors.Is(err, errRemoved) {
			j.discard()
		}
	}
	if err == nil {
		err = j.load(ctx, list, agree)
	}
	if err != nil {
		j.discard()
		return nil, err
	}
	return j, nil
}

// openFile opens the file, or makes it unless it is only to be read.
func (j *Journal) openFile(name string) (err error) {
	if j.readOnly {
		j.file, err = openOwn(name, os.O_RDONLY)
		return err
	}
	if j.file, err = openOwn(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); err == nil {
		j.isNew = true
	} else if errors.Is(err, fs.ErrExist) {
		j.file, err = openOwn(name, os.O_RDWR)
	}
	return err
}

// check makes sure that the file is ours alone.
func (j *Journal) check(ctx context.Context, name string, busy func()) error {
	info, err := j.file.Stat()
	if err != nil {
		return problem.New("opening the journal: %w", err)
	}
	if err := checkOwn(name, info); err != nil || j.readOnly {
		return err
	}
	return j.lock(ctx, name, info, busy)
}

// checkOwn makes sure that nobody else can have written the file.
func checkOwn(name string, info os.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return problem.New("the journal %s is not a regular file", name).Hint(ownFileHint)
	case !isOwn(info):
		return problem.New("the journal %s belongs to another user", name).Hint(ownFileHint)
	case othersWrite(info):
		return problem.New("others can write to the journal %s (mode %#o)", name, info.Mode().Perm()).Hint(ownFileHint)
	}
	return nil
}

// lock makes sure that no other run has the journal, and that the name still
// stands for the file: a run that came to nothing may have removed it.
func (j *Journal) lock(ctx context.Context, name string, info os.FileInfo, busy func()) error {
	locked, err := lockFile(j.file)
	if err == nil && !locked && busy != nil {
		busy()
		locked, err = j.awaitLock(ctx)
	}
	if err == nil && !locked {
		j.isNew = false // another run has it and must keep it
		return problem.New("the journal %s is in use: another run holds it open", name).
			Hint("wait until that ends; or " + AnotherHint)
	}
	if now, statErr := os.Lstat(name); err == nil && (statErr != nil || !os.SameFile(info, now)) {
		j.isNew, err = false, errRemoved
	}
	if err != nil && err != problem.ErrInterrupted {
		err = problem.New("locking the journal %s: %w", name, err)
	}
	return err
}

// awaitLock waits until no other run has the journal, for up to Patience.
func (j *Journal) awaitLock(ctx context.Context) (locked bool, err error) {
	ticks := time.NewTicker(lockInterval)
	defer ticks.Stop()
	for end := time.Now().Add(Patience); !locked && err == nil && time.Now().Before(end); {
		select {
		case <-ticks.C:
			locked, err = lockFile(j.file)
		case <-ctx.Done():
			j.isNew = false
			err = problem.ErrInterrupted
		}
	}
	return locked, err
}

// Begin makes the journal ready to be written: it cuts off a torn line, and
// writes the header of a new journal.
func (j *Journal) Begin(h Header) error {
	if j == nil || j.readOnly {
		return nil
	}
	err := j.file.Truncate(j.end)
	if err == nil && j.found.Header == nil {
		h.Journal, h.AuthorizedBy = version, revocation.Cut(h.AuthorizedBy)
		var line []byte
		if line, err = revocation.Line(&h); err == nil {
			err = j.append(line)
		}
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return problem.New("preparing the journal: %w", err).Hint("nothing was revoked")
	}
	if j.isNew {
		syncDirectory(filepath.Dir(j.file.Name()))
	}
	j.sync.file = j.file
	return nil
}

// syncDirectory makes sure that a new file in it is found after a power failure.
// Not all systems can do that, nor need it.
func syncDirectory(name string) {
	if dir, err := os.Open(name); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
}

// Write appends an outcome, which is on the disk within a second. Its error may
// be about lines that were written before.
func (j *Journal) Write(o *revocation.Object) error {
	if j == nil || j.readOnly {
		return nil
	}
	line, err := o.Line()
	if err == nil {
		err = j.append(line)
	}
	if err == nil {
		err = j.sync.soon()
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// append appends a line. What can be written only in part is taken back, so that
// the journal stays whole.
func (j *Journal) append(line []byte) error {
	if _, err := j.file.WriteAt(line, j.end); err != nil {
		_ = j.file.Truncate(j.end)
		return err
	}
	j.end += int64(len(line))
	return nil
}

// Close makes sure that the journal is on the disk. A new journal in which
// nothing was written is removed again.
func (j *Journal) Close() error {
	switch {
	case j == nil:
		return nil
	case j.isNew && j.end == 0:
		j.discard()
		return nil
	}
	syncErr := j.sync.end()
	if !j.readOnly && syncErr == nil {
		syncErr = j.file.Sync()
	}
	if err := errors.Join(syncErr, j.file.Close()); err != nil {
		return problem.WithCode(problem.Incomplete, "closing the journal: %w", err)
	}
	return nil
}

// discard closes a journal in which nothing was written, and removes it if it is
// new.
func (j *Journal) discard() {
	remove := func() {
		if j.isNew {
			_ = os.Remove(j.file.Name())
		}
	}
	if runtime.GOOS != "windows" { // which removes no open files
		remove()
	}
	_ = j.file.Close()
	if runtime.GOOS == "windows" {
		remove()
	}
}
