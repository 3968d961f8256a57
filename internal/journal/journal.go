// Package journal is the record of a batch on disk: JSON lines, first a header,
// then the outcomes in the order of their arrival. Each line is handed to the
// system before the next outcome is looked at, so that killing the process loses
// at most what was in flight. A journal is locked while it is open.
package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// version is that of the format.
const version = 1

// start is how each journal starts.
var start = fmt.Appendf(nil, `{"journal":%d,`, version)

// maxLine bounds a line of a journal, in bytes. Certificates with very many
// names make the longest ones.
const maxLine = 1 << 20

const (
	// AnotherHint is for a journal that is about something else.
	AnotherHint = "use another journal: what is revoked already is no failure"
	newNameHint = "name a file that does not exist yet"
	ownFileHint = "a journal is a regular file of yours that others cannot write"
)

// A Header is the first line of a journal: what it is about, and who began it.
// The README documents it.
type Header struct {
	Journal       int    `json:"journal"` // set by Begin
	CA            string `json:"ca"`
	Root          string `json:"rootFingerprint"`
	ReasonCode    int    `json:"reasonCode"`
	ReasonName    string `json:"reasonName"`
	Reason        string `json:"reason,omitempty"`
	Time          string `json:"time"`
	AuthorizedBy  string `json:"authorizedBy"`
	User          string `json:"user"`
	Host          string `json:"host"`
	Version       string `json:"version"`
	Targets       int    `json:"targets"`
	TargetsDigest string `json:"targetsDigest"`
}

// A Journal is open, and locked unless it is only read. A nil Journal has
// nothing in it and takes everything without writing it.
type Journal struct {
	file     *os.File
	isNew    bool
	readOnly bool
	end      int64 // of the last whole line
	found    Found
}

// Found is what a journal had in it when it was opened.
type Found struct {
	Header       *Header   // nil if nothing was in it
	Done         int       // targets that it says are revoked
	Since        time.Time // when the first of them was
	OtherTargets bool      // it was begun for another list of targets
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
// is only to be read and does not exist, Open returns nil.
func Open(ctx context.Context, name string, readOnly bool, list *target.List, agree func(*Header) error) (*Journal, error) {
	if name == "" {
		return nil, nil
	}
	j := &Journal{readOnly: readOnly}
	err := j.openFile(name)
	switch {
	case readOnly && errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, problem.New("opening the journal: %w", err).Hint(ownFileHint)
	}
	if err = j.check(name); err == nil {
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
func (j *Journal) check(name string) error {
	info, err := j.file.Stat()
	if err != nil {
		return problem.New("opening the journal: %w", err)
	}
	if err := checkOwn(name, info); err != nil || j.readOnly {
		return err
	}
	return j.lock(name, info)
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
func (j *Journal) lock(name string, info os.FileInfo) error {
	locked, err := lockFile(j.file)
	if err == nil && !locked {
		j.isNew = false // another run has it and must keep it
		return problem.New("the journal %s is in use: another run holds it open", name).
			Hint("wait until that ends; or " + AnotherHint)
	}
	if now, statErr := os.Lstat(name); err == nil && (statErr != nil || !os.SameFile(info, now)) {
		j.isNew, err = false, errors.New("another run has just removed it")
	}
	if err != nil {
		return problem.New("locking the journal %s: %w", name, err)
	}
	return nil
}

// load reads a journal that is there.
func (j *Journal) load(ctx context.Context, list *target.List, agree func(*Header) error) error {
	err := j.lines(ctx, func(line []byte, number int) error {
		j.end += int64(len(line))
		if number == 1 {
			return j.loadHeader(line, agree)
		}
		var object revocation.Object
		if err := json.Unmarshal(line, &object); err != nil {
			return problem.New("%s, line %d is not that of a journal", j.file.Name(), number).Hint(AnotherHint)
		}
		j.markDone(&object, list)
		return nil
	})
	if header := j.found.Header; err == nil && header != nil {
		j.found.OtherTargets = header.TargetsDigest != list.Digest()
	}
	return err
}

// loadHeader reads the first line.
func (j *Journal) loadHeader(line []byte, agree func(*Header) error) error {
	header := &Header{}
	if err := json.Unmarshal(line, header); err != nil || header.Journal != version {
		return j.notOurs()
	}
	j.found.Header = header
	return agree(header)
}

// markDone marks the target as done that an object says is revoked, if it is one
// of this run.
func (j *Journal) markDone(object *revocation.Object, list *target.List) {
	t := done(object, list.Find)
	if t == nil || t.Done {
		return
	}
	t.Done = true
	j.found.Done++
	at, err := time.Parse(time.RFC3339, object.Time)
	if since := j.found.Since; err == nil && (since.IsZero() || at.Before(since)) {
		j.found.Since = at
	}
}

// done returns the target that an object says is revoked, or nil.
func done(object *revocation.Object, find func(target.Serial) (*target.Target, bool)) *target.Target {
	if !object.Status.Done() {
		return nil
	}
	serial, err := target.ParseSerial(object.Serial)
	if err != nil {
		return nil
	}
	t, _ := find(serial)
	return t
}

// lines hands out the whole lines of a journal, which number from 1. After the
// last line break there may be a part of the line that was being written when a
// run was killed.
func (j *Journal) lines(ctx context.Context, each func(line []byte, number int) error) error {
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return problem.New("reading the journal: %w", err)
	}
	in := bufio.NewReaderSize(j.file, 64<<10)
	for number := 1; ctx.Err() == nil; number++ {
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			return j.checkTorn(line, number)
		case err != nil:
			return problem.New("reading the journal: %w", err)
		}
		if err := each(line, number); err != nil {
			return err
		}
	}
	return problem.ErrInterrupted
}

// readLine reads a line of at most maxLine bytes, with its line break. The rest
// of the input after the last line break comes with io.EOF.
func readLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

// checkTorn refuses to truncate a file whose only, partial line is not the start
// of a header.
func (j *Journal) checkTorn(rest []byte, number int) error {
	if n := min(len(rest), len(start)); number == 1 && !bytes.Equal(rest[:n], start[:n]) {
		return j.notOurs()
	}
	return nil
}

func (j *Journal) notOurs() error {
	return problem.New("%s is not a journal of this program", j.file.Name()).Hint(newNameHint)
}

// Begin makes the journal ready to be written: it cuts off a torn line, and
// writes the header of a new journal.
func (j *Journal) Begin(h Header) error {
	if j == nil || j.readOnly {
		return nil
	}
	err := j.file.Truncate(j.end)
	if err == nil && j.found.Header == nil {
		h.Journal = version
		err = j.writeLine(&h)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return problem.New("making the journal ready: %w", err).Hint("nothing was revoked")
	}
	return nil
}

// Write appends an outcome. A line that can be written only in part is taken
// back, so that the journal stays whole.
func (j *Journal) Write(o *revocation.Object) error {
	if j == nil || j.readOnly {
		return nil
	}
	return j.writeLine(o)
}

func (j *Journal) writeLine(value any) error {
	line, err := revocation.Line(value)
	if err != nil {
		return err
	}
	if _, err := j.file.WriteAt(line, j.end); err != nil {
		_ = j.file.Truncate(j.end)
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.end += int64(len(line))
	return nil
}

// Outcomes hands out the outcomes of the targets that are done, as they were in
// the journal when it was opened. They have no Reason: it is the header's.
func (j *Journal) Outcomes(list *target.List, each func(*revocation.Outcome)) error {
	if j == nil || j.found.Done == 0 {
		return nil
	}
	index := make(map[target.Serial]*target.Target, j.found.Done) // the list's own is gone by now
	for i := range list.All {
		if t := &list.All[i]; t.Done {
			index[t.Serial] = t
		}
	}
	find := func(s target.Serial) (*target.Target, bool) { return index[s], index[s] != nil }
	err := j.lines(context.Background(), func(line []byte, number int) error {
		var object revocation.Object
		if number == 1 || json.Unmarshal(line, &object) != nil {
			return nil
		}
		if t := done(&object, find); t != nil {
			delete(index, t.Serial)
			each(outcome(t, &object))
		}
		return nil
	})
	if err != nil {
		return problem.WithCode(problem.Incomplete, "what was revoked before: %w", err)
	}
	return nil
}

// outcome turns an object of a journal back into an outcome.
func outcome(t *target.Target, object *revocation.Object) *revocation.Outcome {
	o := &revocation.Outcome{
		Target: t, Answer: revocation.Answer{Status: object.Status, RequestID: object.RequestID},
		Attempts: object.Attempts, AuthorizedBy: object.AuthorizedBy,
	}
	o.Time, _ = time.Parse(time.RFC3339, object.Time)
	return o
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
	var syncErr error
	if !j.readOnly {
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
