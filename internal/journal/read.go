package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// start is how each journal starts.
var start = fmt.Appendf(nil, `{"journal":%d,`, version)

// load reads a journal that is there. The end is that of its last whole line:
// what a power failure has left behind that is no line.
func (j *Journal) load(ctx context.Context, list *target.List, agree func(*Header) error) error {
	damaged := 0 // lines since the last whole one
	strays := false
	err := j.lines(ctx, func(line []byte, number int, end int64) error {
		switch {
		case line == nil:
			damaged++
			return nil
		case number == 1:
			if err := j.loadHeader(line, agree); err != nil {
				return err
			}
		default:
			var e entry
			serial, err := e.read(line)
			if err != nil {
				return problem.New("%s, line %d is not a line of a journal", j.file.Name(), number).Hint(AnotherHint)
			}
			if t, found := list.Find(serial); found {
				j.markDone(&e, t)
			} else {
				strays = true
			}
		}
		j.end, j.found.Damaged, damaged = end, j.found.Damaged+damaged, 0
		return nil
	})
	list.DropIndex() // the digest takes as much memory as the index of a million targets
	if header := j.found.Header; err == nil && header != nil {
		grown := len(list.All) > header.Targets && !strays
		j.found.OtherTargets = !grown && header.TargetsDigest != list.Digest()
	}
	return err
}

// loadHeader reads the first line.
func (j *Journal) loadHeader(line []byte, agree func(*Header) error) error {
	header := &Header{}
	if err := target.ReadObject(line, header); err != nil || header.Journal != version {
		return j.notOurs()
	}
	j.found.Header = header
	return agree(header)
}

func (j *Journal) notOurs() error {
	return problem.New("%s is not a journal of this program", j.file.Name()).Hint(newNameHint)
}

// An entry is what counts of an object in a journal (revocation.Object).
type entry struct {
	Serial       string            `json:"serial"`
	Status       revocation.Status `json:"status"`
	Attempts     int               `json:"attempts"`
	Time         string            `json:"time"`
	AuthorizedBy string            `json:"authorizedBy"`
	RequestID    string            `json:"requestId"`
	Previous     string            `json:"previousReason"`
}

func (e *entry) read(line []byte) (target.Serial, error) {
	if err := target.ReadObject(line, e); err != nil {
		return target.Serial{}, err
	}
	return target.ParseSerial(e.Serial)
}

// markDone marks a target as done if its entry says that it is.
func (j *Journal) markDone(e *entry, t *target.Target) {
	if t.Done || !e.Status.Done() {
		return
	}
	t.Done = true
	j.found.Done++
	at, err := time.Parse(time.RFC3339, e.Time)
	if since := j.found.Since; err == nil && (since.IsZero() || at.Before(since)) {
		j.found.Since = at
	}
}

// lines hands out the lines of a journal, which number from 1, and where each
// ends in the file. The line is nil if it has gaps, which nobody has written: a
// file system that had made room for it and was cut off from its power fills them
// with zeros. After the last line break there may be a part of the line that was
// being written.
func (j *Journal) lines(ctx context.Context, each func(line []byte, number int, end int64) error) error {
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return problem.New("reading the journal: %w", err)
	}
	in := bufio.NewReaderSize(j.file, 64<<10)
	end := int64(0)
	for number := 1; ctx.Err() == nil; number++ {
		line, size, err := readLine(in)
		gaps := int64(len(line)) < size
		switch {
		case errors.Is(err, io.EOF):
			return j.checkTorn(line, gaps, number)
		case err != nil:
			return problem.New("reading the journal: %w", err)
		case gaps && number == 1:
			return j.notOurs()
		case gaps:
			line = nil
		}
		end += size
		if err := each(line, number, end); err != nil {
			return err
		}
	}
	return problem.ErrInterrupted
}

// readLine reads a line of at most target.MaxLine bytes, with its line break, and
// returns its size in bytes. If there is a zero in it, only what stands before
// that is returned, and the size may be any. The rest of the input after the last
// line break comes with io.EOF.
func readLine(in *bufio.Reader) (line []byte, size int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		whole := int64(len(line)) == size
		size += int64(len(part))
		if whole {
			before, _, _ := bytes.Cut(part, []byte{0})
			line = append(line, before...)
		}
		switch {
		case len(line) > target.MaxLine:
			return nil, 0, fmt.Errorf("a line has more than %d bytes", target.MaxLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, size, err
		}
	}
}

// checkTorn refuses to truncate a file whose only, partial line is not the start
// of a header. Of one with gaps all of the start must be there: a file of zeros
// may be anything.
func (j *Journal) checkTorn(rest []byte, gaps bool, number int) error {
	n := min(len(rest), len(start))
	if gaps {
		n = len(start)
	}
	if number == 1 && !bytes.HasPrefix(rest, start[:n]) {
		return j.notOurs()
	}
	return nil
}

// Outcomes hands out the outcomes of the targets that are done, as they were in
// the journal when it was opened. They have no Reason: it is the header's.
func (j *Journal) Outcomes(list *target.List, each func(*revocation.Outcome)) error {
	if j == nil || j.found.Done == 0 {
		return nil
	}
	index := make(map[target.Serial]uint32, j.found.Done) // of list.All; the list's own is gone by now
	for i := range list.All {
		if t := &list.All[i]; t.Done {
			index[t.Serial] = uint32(i)
		}
	}
	err := j.lines(context.Background(), func(line []byte, number int, _ int64) error {
		var e entry
		serial, err := e.read(line)
		if i, found := index[serial]; number > 1 && err == nil && found && e.Status.Done() {
			delete(index, serial)
			each(outcome(&list.All[i], &e))
		}
		return nil
	})
	if err != nil {
		return problem.WithCode(problem.Incomplete, "what was revoked before: %w", err)
	}
	return nil
}

// outcome turns an entry back into an outcome.
func outcome(t *target.Target, e *entry) *revocation.Outcome {
	o := &revocation.Outcome{
		Target: t, Answer: revocation.Answer{Status: e.Status, RequestID: e.RequestID},
		Attempts: e.Attempts, AuthorizedBy: e.AuthorizedBy, Previous: e.Previous,
	}
	o.Time, _ = time.Parse(time.RFC3339, e.Time)
	return o
}
