package target

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// More bounds of a file of --from, in bytes.
const (
	maxBlock = 1 << 20 // of PEM
	maxProse = 1 << 20 // before the first certificate
)

// maxBad is how many bad lines of a file are told one by one.
const maxBad = 10

const kindHint = "a file of --from holds serial numbers, one a line or in a CSV column named serial, or PEM certificates, or the output of --format json"

// A reader reads what one --from names. Its errors name the line, but show the line
// only if that looks like a serial number: the file may be a key.
type reader struct {
	list    *List
	sources Sources
	notes   Notes
	leftOut []*leftOut // certificates of CAs
	file
}

// A file is what is known about the file that is being read.
type file struct {
	name    string // as messages call it
	onlyPEM bool   // it is one of a directory
	line    int    // the number of the line that is being read, from 1
	state   state

	bad        []error // what is wrong with the first bad lines; with those of prose, if it was to be a list
	more       int     // how many others are bad
	log        error   // what is wrong with the first one that is of step-ca's log
	prose      prose
	proseBytes int
	numberLine int   // before the first PEM block, the first line that names a target; or 0
	table      table // in inTable
	objects    int   // how many lines of our own JSON were read

	block     []byte // the PEM block that is being read, or nil
	blockLine int    // where it begins
	otherPEM  string // the type of a PEM block that is no certificate
	named     bool   // it holds a certificate, or names one
}

// A state is the part of the file that the reader is in.
type state int

const (
	inList    state = iota // serial numbers, one a line; only comments so far, maybe
	inProse                // text that belongs to no list; certificates may follow
	inPEM                  // PEM blocks, and any text between them
	inTable                // rows of CSV
	inObjects              // our own JSON lines
)

func newReader(l *List, s Sources, from string) *reader {
	r := &reader{list: l, sources: s, notes: Notes{Name: from}, file: file{name: from}}
	if from == "-" {
		r.notes.Name, r.name = "standard input", "standard input"
	}
	return r
}

// open opens and reads a file.
func (r *reader) open(file string) error {
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return problem.New("reading what to revoke: %w", err)
		}
		defer in.Close()
	}
	r.list.begin(r.name)
	return r.read(in)
}

// read reads the file. A byte-order mark may tell that it is in UTF-16, as
// Windows PowerShell writes it; a file that was joined from several may have
// more of these marks.
func (r *reader) read(in io.Reader) error {
	lines := bufio.NewScanner(transform.NewReader(in, unicode.BOMOverride(encoding.Nop.NewDecoder())))
	lines.Buffer(make([]byte, 0, 64<<10), MaxLine)
	for lines.Scan() {
		r.line++
		if err := r.take(bytes.TrimPrefix(lines.Bytes(), []byte("\ufeff"))); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return problem.New("%s, line %d has more than %d bytes", r.name, r.line+1, MaxLine).Hint(kindHint)
	case err != nil:
		return problem.New("reading what to revoke: %w", err)
	case r.block != nil:
		return r.noEnd()
	}
	return r.badLines()
}

// take takes one line. The white space around it matters in prose alone.
func (r *reader) take(raw []byte) error {
	line := bytes.TrimSpace(raw)
	switch {
	case r.block != nil:
		return r.takeBlock(line)
	case isBegin(line) && r.state != inObjects:
		return r.beginBlock(line)
	case bytes.Contains(line, []byte("-----BEGIN CERTIFICATE")), bytes.Contains(line, []byte("-----END CERTIFICATE")):
		return r.errorAt(r.line, ": a certificate that does not begin or end on a line of its own").Hint("is a line break missing?")
	}
	switch r.state {
	case inProse, inPEM:
		return r.takeProse(raw)
	case inTable:
		return r.takeRow(string(line))
	case inObjects:
		return r.takeObject(line)
	}
	return r.takeListed(raw)
}

// wrong notes a bad line. Reading goes on, to find more of them.
func (r *reader) wrong(err error) {
	if len(r.bad) < maxBad {
		r.bad = append(r.bad, err)
	} else {
		r.more++
	}
}

// badLines tells the bad lines of a list one by one. Of other text, in which no line
// looks like a number, one is enough: step-ca's log begins with lines that tell nothing.
func (r *reader) badLines() error {
	switch {
	case len(r.bad) == 0:
		return nil
	case r.log != nil && r.numberLine == 0:
		return r.log
	case len(r.bad) == 1, r.numberLine == 0 && r.objects == 0:
		return r.bad[0]
	case r.more > 0:
		return errors.Join(append(r.bad, problem.New("%s has %s", r.name, count(r.more, "more bad line", "more bad lines")))...)
	}
	return errors.Join(r.bad...)
}

// nothing says what is in a file, or in all of a directory, that names no
// certificate.
func (r *reader) nothing(name string) error {
	switch {
	case len(r.leftOut) > 0 && name == r.notes.Name:
		return problem.New("%s holds only CA certificates", name).Hint(caHint)
	case r.otherPEM != "":
		return problem.New("%s holds no certificate, but PEM of type %.64q", name, r.otherPEM).Hint(kindHint)
	}
	return problem.New("%s names no certificate at all", name).
		Hint("has the program that should have written it failed?").Hint(kindHint)
}

// errorAt returns an error about a line. The format continues after its number.
func (r *reader) errorAt(line int, format string, args ...any) *problem.Problem {
	return problem.New("%s, line %d"+format, append([]any{r.name, line}, args...)...)
}

// add adds a target that a line names.
func (r *reader) add(line int, serial Serial, cert *Certificate) error {
	if err := r.list.checkSame(serial, cert); err != nil {
		return err
	}
	r.named = true
	r.notes.Read++
	if r.list.Add(serial, cert) {
		r.list.lines = append(r.list.lines, uint32(line))
	} else {
		r.notes.Repeated++
	}
	return nil
}
