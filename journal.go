package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"go.step.sm/crypto/x509util"
)

// A journal is the record of a batch on disk: JSON lines, first a header, then
// the outcomes as they arrive. Each line is in the hands of the system before
// the next revocation is looked at, so that killing the process loses what was
// in flight at most. It is locked while it is open.
type journal struct {
	file     *os.File
	isNew    bool
	end      int64 // of the last whole line
	found    *journalHeader
	done     int       // targets that it says are revoked
	since    time.Time // when the first of them was
	readOnly bool      // of a dry run
}

// journalVersion is that of the format.
const journalVersion = 1

// journalStart is what each journal starts with.
var journalStart = fmt.Appendf(nil, `{"journal":%d,`, journalVersion)

// A journalHeader is the first line of a journal: what it is about, and who
// began it. The README documents it.
type journalHeader struct {
	Journal       int    `json:"journal"`
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

// openJournal opens the journal that the options ask for, if they do, and marks
// the targets that it says are revoked. Nothing is written yet; all errors are
// usage errors. Without a journal it returns nil, which the methods take.
func openJournal(ctx context.Context, o *options, t *targets) (*journal, error) {
	defer func() { t.index = nil }()
	if o.journal == "" || o.looks() {
		return nil, nil
	}
	j := &journal{readOnly: o.dryRun}
	if err := j.open(o.journal); err != nil || j.file == nil {
		return nil, err
	}
	if err := j.load(ctx, o, t); err != nil {
		j.discard()
		return nil, err
	}
	if j.found != nil {
		all := count(len(t.list), "certificate", "certificates")
		switch j.done {
		case 0:
			saySelected("Journal", o.journal+", of which nothing is done yet")
		case len(t.list):
			saySelected("Journal", fmt.Sprintf("%s, all %s are done since %s", o.journal, all, stamp(j.since)))
		default:
			saySelected("Journal", fmt.Sprintf("%s, %s of %s are done since %s", o.journal, humanize.Comma(int64(j.done)), all, stamp(j.since)))
		}
	}
	return j, nil
}

// open opens and locks the file. Of a dry run it need not exist.
func (j *journal) open(name string) (err error) {
	const hint = "a journal is a regular file of yours that others cannot write"
	if j.readOnly {
		if j.file, err = openOwn(name, os.O_RDONLY); errors.Is(err, fs.ErrNotExist) {
			j.file = nil
			return nil
		}
	} else if j.file, err = openOwn(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); err == nil {
		j.isNew = true
	} else if errors.Is(err, fs.ErrExist) {
		j.file, err = openOwn(name, os.O_RDWR)
	}
	if err != nil {
		j.file = nil
		return usagef("opening the journal: %w", err).hint(hint)
	}
	info, err := j.file.Stat()
	switch {
	case err != nil:
		err = usagef("opening the journal: %w", err)
	case !info.Mode().IsRegular():
		err = usagef("the journal %s is not a regular file", name).hint(hint)
	case !isOwn(info):
		err = usagef("the journal %s belongs to another user", name).hint(hint)
	case othersWrite(info):
		err = usagef("others can write to the journal %s (mode %#o)", name, info.Mode().Perm()).hint(hint)
	case !j.readOnly:
		err = j.lock(name, info)
	}
	if err != nil {
		j.discard()
	}
	return err
}

// lock makes sure that no other run has the journal, and that it is still what
// its name stands for: a run that came to nothing may have removed it.
func (j *journal) lock(name string, info os.FileInfo) error {
	locked, err := lockFile(j.file)
	if err == nil && !locked {
		j.isNew = false // another one has it
		return usagef("the journal %s is in use: another run holds it open", name).
			hint("wait until that ends; or use another journal: what is revoked already is no failure")
	}
	if now, statErr := os.Lstat(name); err == nil && (statErr != nil || !os.SameFile(info, now)) {
		j.isNew, err = false, errors.New("another run has just removed it")
	}
	if err != nil {
		return usagef("locking the journal %s: %w", name, err)
	}
	return nil
}

// load reads a journal that is there.
func (j *journal) load(ctx context.Context, o *options, t *targets) error {
	name := o.journal
	err := j.lines(ctx, func(line []byte, number int) error {
		j.end += int64(len(line))
		if number == 1 {
			return j.loadHeader(o, line)
		}
		var object object
		if err := json.Unmarshal(line, &object); err != nil {
			return usagef("%s, line %d is not that of a journal", name, number).hint("use another journal: what is revoked already is no failure")
		}
		serial, err := parseSerial(object.Serial)
		i, found := t.index[serial]
		if err != nil || !found || !object.Status.done() || t.list[i].done {
			return nil
		}
		t.list[i].done = true
		j.done++
		if at, err := time.Parse(time.RFC3339, object.Time); err == nil && (j.since.IsZero() || at.Before(j.since)) {
			j.since = at
		}
		return nil
	})
	if err != nil || j.found == nil {
		return err
	}
	if digest := t.digest(); j.found.TargetsDigest != digest {
		sayMarked(warn, "the journal was begun for other targets than these")
	}
	return nil
}

// loadHeader makes sure that the journal is about the same CA and reason.
func (j *journal) loadHeader(o *options, line []byte) error {
	name, found := o.journal, &journalHeader{}
	if err := json.Unmarshal(line, found); err != nil || found.Journal != journalVersion {
		return usagef("%s is not a journal of this program", name).hint("name a file that does not exist yet")
	}
	const hint = "use another journal: what is revoked already is no failure"
	switch fingerprints := o.rootFingerprints(); {
	case !o.isCA(found.CA):
		return usagef("the journal %s is about another CA, %s", name, found.CA).hint(hint)
	case !slices.Contains(fingerprints, found.Root):
		return usagef("the journal %s is about a CA with another root certificate, %s", name, found.Root).hint(hint)
	case found.ReasonCode != o.reasonCode.code || found.Reason != o.reason:
		return usagef("the journal %s is about revocations with another reason, %s", name, describeReason(found.ReasonCode, found.Reason)).hint(hint)
	}
	j.found = found
	return nil
}

// rootFingerprints are those of the root certificates that are trusted.
func (o *options) rootFingerprints() (sums []string) {
	if o.roots == nil {
		return []string{o.fingerprint}
	}
	for _, root := range o.roots {
		sums = append(sums, x509util.Fingerprint(root))
	}
	return sums
}

// lines hands out the whole lines of a journal, which number from 1. What comes
// after the last line break is the rest of a line that was being written when a
// run was killed.
func (j *journal) lines(ctx context.Context, each func(line []byte, number int) error) error {
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return usagef("reading the journal: %w", err)
	}
	in := bufio.NewReaderSize(j.file, 64<<10)
	for number := 1; ctx.Err() == nil; number++ {
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			return j.checkTorn(line, number)
		case err != nil:
			return usagef("reading the journal: %w", err)
		}
		if err := each(line, number); err != nil {
			return err
		}
	}
	return errInterrupted
}

// readLine reads a line of at most maxLine bytes, with its line break.
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

// checkTorn makes sure that what is to be cut off was written by this program.
func (j *journal) checkTorn(rest []byte, number int) error {
	if number > 1 || len(rest) == 0 {
		return nil
	}
	if n := min(len(rest), len(journalStart)); !bytes.Equal(rest[:n], journalStart[:n]) {
		return usagef("%s is not a journal of this program", j.file.Name()).hint("name a file that does not exist yet")
	}
	return nil
}

// begin makes the journal ready to be written: it cuts off a torn line, and
// writes the header of a new one.
func (j *journal) begin(o *options, t *targets, authorizedBy string) error {
	if j == nil || j.readOnly {
		return nil
	}
	err := j.file.Truncate(j.end)
	if err == nil && j.found == nil {
		host, _ := os.Hostname()
		err = j.write(&journalHeader{
			Journal: journalVersion, CA: o.caName(), Root: o.rootFingerprints()[0],
			ReasonCode: o.reasonCode.code, ReasonName: o.reasonCode.name, Reason: o.reason,
			Time: stamp(time.Now()), AuthorizedBy: authorizedBy,
			User: userName(), Host: host, Version: programVersion(),
			Targets: len(t.list), TargetsDigest: t.digest(),
		})
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return failf("making the journal ready: %w", err).hint("nothing was revoked")
	}
	return nil
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

// write appends one line. One that can be written only in part is taken back.
func (j *journal) write(object any) error {
	if j == nil || j.readOnly {
		return nil
	}
	line, err := json.Marshal(object)
	if err != nil {
		return err
	}
	line = append([]byte(printableJSON(line)), '\n')
	if _, err := j.file.WriteAt(line, j.end); err != nil {
		_ = j.file.Truncate(j.end)
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.end += int64(len(line))
	return nil
}

// outcomes hands out what the journal had, as it was opened, of the targets that
// are done.
func (j *journal) outcomes(list []target, each func(*outcome)) error {
	if j == nil || j.done == 0 {
		return nil
	}
	index := make(map[serialNumber]int, j.done)
	for i, t := range list {
		if t.done {
			index[t.serial] = i
		}
	}
	err := j.lines(context.Background(), func(line []byte, number int) error {
		var object object
		if number == 1 || json.Unmarshal(line, &object) != nil || !object.Status.done() {
			return nil
		}
		serial, err := parseSerial(object.Serial)
		i, found := index[serial]
		if err != nil || !found {
			return nil
		}
		delete(index, serial)
		o := &outcome{target: &list[i], status: object.Status, attempts: object.Attempts, requestID: object.RequestID, authorizedBy: object.AuthorizedBy}
		o.time, _ = time.Parse(time.RFC3339, object.Time)
		each(o)
		return nil
	})
	if err != nil {
		return passOn(err, exitIncomplete, "what was revoked before")
	}
	return nil
}

// close makes sure that the journal is on the disk. One that was never begun
// is removed again.
func (j *journal) close() error {
	if j == nil || j.file == nil {
		return nil
	}
	if j.isNew && j.end == 0 {
		j.discard()
		return nil
	}
	var err error
	if !j.readOnly {
		err = j.file.Sync()
	}
	if err = cmp.Or(err, j.file.Close()); err != nil {
		return &problem{error: fmt.Errorf("closing the journal: %w", err), code: exitIncomplete}
	}
	return nil
}

// discard closes a journal in which nothing was written, and removes it if it
// is new.
func (j *journal) discard() {
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
	j.file = nil
}

// digest is a SHA-256 of the serial numbers in ascending order, in decimal, a
// line each: what "sort -n serials.txt | sha256sum" prints.
func (t *targets) digest() string {
	serials := make([]serialNumber, len(t.list))
	for i := range t.list {
		serials[i] = t.list[i].serial
	}
	slices.SortFunc(serials, func(a, b serialNumber) int { return bytes.Compare(a[:], b[:]) })
	sum := sha256.New()
	for _, serial := range serials {
		fmt.Fprintln(sum, serial)
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil))
}
