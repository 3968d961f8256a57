package target

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Sources name certificates.
type Sources struct {
	Serials    []string               // serial numbers, as people write them
	Certs      []string               // files with certificates, the first one of each counts
	From       string                 // a file that names many, "-" for standard input, or empty
	AllowSmall bool                   // take numbers that are too small for those of step-ca
	Exists     func(word string) bool // whether a file has this name; asked about words of Serials that are none; may be nil
	Agree      func(Claim) error      // whether a line of our own JSON is about this run; may be nil
}

// Notes are what was noticed in the file of Sources.From.
type Notes struct {
	Name     string   // of the file, as messages call it
	Read     int      // how many certificates it names, repetitions included
	Repeated int      // how many of these were named before
	LeftOut  []string // certificates of CAs, a line for a person each
}

// caHint is for certificates of CAs.
const caHint = "step-ca revokes the certificates that it issues, not those of CAs"

// Read reads and checks everything that is to be revoked. A certificate that is
// named twice is one target. Errors have no exit code, except for
// problem.ErrInterrupted and those of Agree. Print Notes.LeftOut before an error:
// it explains why a file names no certificate.
func Read(ctx context.Context, s Sources) (*List, Notes, error) {
	l := &List{}
	for _, file := range s.Certs {
		if err := l.addFile(ctx, file); err != nil {
			return nil, Notes{}, err
		}
	}
	for _, word := range s.Serials {
		serial, err := parseSerial(word, s.Exists)
		if err == nil {
			err = s.checkSize(serial)
		}
		if err != nil {
			return nil, Notes{}, err
		}
		l.Add(serial, nil)
	}
	if s.From == "" {
		return l, Notes{}, nil
	}
	notes, err := l.readFrom(ctx, s)
	if err != nil {
		return nil, notes, err
	}
	return l, notes, nil
}

// addFile adds the first certificate of a file.
func (l *List) addFile(ctx context.Context, file string) error {
	certs, err := input.Certificates(ctx, file, "--cert")
	if err != nil {
		return err
	}
	leaf := certs[0]
	serial, ok := SerialOf(leaf.SerialNumber)
	switch {
	case leaf.IsCA:
		return problem.New("the first certificate in %s is that of a CA (%s)", file, leaf.Subject).Hint(caHint)
	case !ok:
		return problem.New("the certificate in %s has no valid serial number", file).Hint(serialBounds)
	}
	cert := certificateIn(leaf, file)
	if err := l.checkSame(serial, cert); err != nil {
		return err
	}
	l.Add(serial, cert)
	l.Chain = certs
	return nil
}

func certificateIn(cert *x509.Certificate, source string) *Certificate {
	c := CertificateOf(cert)
	c.source, c.der = source, cert.Raw
	return c
}

// checkSize refuses what cannot be the serial number of an X.509 certificate of
// step-ca.
func (s *Sources) checkSize(serial Serial) error {
	if s.AllowSmall || !serial.isSmall() {
		return nil
	}
	return problem.New("the serial number %s is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits", serial).
		Hint(smallHint)
}

const smallHint = "for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown"

// readFrom adds what the file of --from names.
func (l *List) readFrom(ctx context.Context, s Sources) (Notes, error) {
	r := newReader(l, s)
	// There is little but the list itself in memory, and no pointer in it:
	// collecting often costs nothing, and saves half of the memory.
	before := debug.SetGCPercent(20)
	defer debug.SetGCPercent(before)
	if err := input.Await(ctx, r.open); err != nil {
		return Notes{}, err
	}
	for _, ca := range r.leftOut {
		r.notes.LeftOut = append(r.notes.LeftOut, ca.describe(r.notes.Name))
	}
	if r.notes.Read == 0 {
		return r.notes, r.nothing()
	}
	return r.notes, nil
}

// More bounds of a file of --from, in bytes.
const (
	maxBlock = 1 << 20 // of PEM
	maxProse = 1 << 20 // before the first certificate
)

const kindHint = "a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json"

// A reader reads a file of --from. Its errors name the line, but show the line
// only if that looks like a serial number: the file may be a key.
type reader struct {
	list    *List
	sources Sources
	notes   Notes
	line    int // the number of the line that is being read, from 1
	state   state

	notAList   error // what is wrong with the first line of the prose
	prose      prose
	proseBytes int
	numberLine int // before the first PEM block, the first line that names a target; or 0
	objects    int // how many lines of our own JSON were read

	block     []byte // the PEM block that is being read, or nil
	blockLine int    // where it begins
	otherPEM  string // the type of a PEM block that is no certificate
	leftOut   []*leftOut
}

// A state is the part of the file that the reader is in.
type state int

const (
	inList    state = iota // serial numbers, one a line; only comments so far, maybe
	inProse                // text that belongs to no list; certificates may follow
	inPEM                  // PEM blocks, and any text between them
	inObjects              // our own JSON lines
)

func newReader(l *List, s Sources) *reader {
	r := &reader{list: l, sources: s, notes: Notes{Name: s.From}}
	if s.From == "-" {
		r.notes.Name = "standard input"
	}
	return r
}

// open opens and reads the file.
func (r *reader) open() error {
	in := os.Stdin
	if r.sources.From != "-" {
		var err error
		if in, err = os.Open(r.sources.From); err != nil {
			return problem.New("reading what to revoke: %w", err)
		}
		defer in.Close()
	}
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
		return problem.New("%s, line %d has more than %d bytes", r.notes.Name, r.line+1, MaxLine).Hint(kindHint)
	case err != nil:
		return problem.New("reading what to revoke: %w", err)
	case r.block != nil:
		return r.noEnd()
	}
	return r.notAList
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
		return r.errorAt(r.line, ": a certificate that does not begin or end on a line of its own").Hint("is there a line break missing?")
	}
	switch r.state {
	case inProse, inPEM:
		return r.takeProse(raw)
	case inObjects:
		return r.takeObject(line)
	}
	return r.takeListed(raw)
}

// nothing says what is in a file that names no certificate.
func (r *reader) nothing() error {
	switch {
	case len(r.leftOut) > 0:
		return problem.New("%s holds certificates of CAs only", r.notes.Name).Hint(caHint)
	case r.otherPEM != "":
		return problem.New("%s holds no certificate, but PEM of type %.64q", r.notes.Name, r.otherPEM).Hint(kindHint)
	}
	return problem.New("%s names no certificate at all", r.notes.Name).
		Hint("has the program that should have written it failed?").Hint(kindHint)
}

// errorAt returns an error about a line. The format continues after its number.
func (r *reader) errorAt(line int, format string, args ...any) *problem.Problem {
	return problem.New("%s, line %d"+format, append([]any{r.notes.Name, line}, args...)...)
}

// add adds a target.
func (r *reader) add(serial Serial, cert *Certificate) error {
	if err := r.list.checkSame(serial, cert); err != nil {
		return err
	}
	r.notes.Read++
	if !r.list.Add(serial, cert) {
		r.notes.Repeated++
	}
	return nil
}
