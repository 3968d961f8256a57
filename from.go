package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"strings"

	"golang.org/x/term"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// The bounds of a file of --from, in bytes: a line of it, a certificate, and the
// text that may come before its first certificate.
const (
	maxLine  = 1 << 20
	maxBlock = 1 << 20
	maxText  = 1 << 20
)

// kind is what a file of --from holds. Its first lines tell.
type kind int

const (
	kindUnknown kind = iota
	kindList         // serial numbers, one a line
	kindPEM          // certificates, and any text around them
	kindJSON         // our own JSON lines
)

const kindHint = "a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json"

// A fromFile is the file of --from while it is read.
type fromFile struct {
	*targets
	options  *options
	name     string // as messages call it
	kind     kind
	line     int // the number of the line that is being read, from 1
	repeated int
	notList  error // why the file is no list; it may still hold certificates
	text     int   // bytes since then
	wanted   bool  // some of it looks like a serial number

	block     []byte // the PEM block that is being read, or nil
	blockLine int    // where it begins
	otherPEM  string // the type of a PEM block that is no certificate
	issuers   []*leftOut
}

// leftOut is the certificate of a CA that stands between others.
type leftOut struct {
	sum     [sha256.Size]byte
	subject string
	line    int // where it stands first
	times   int
}

// readFrom reads the targets in the file of --from. Its errors name the line,
// but show what it holds only if that looks like a serial number: the file may
// be a key.
func readFrom(ctx context.Context, o *options, t *targets) error {
	f := &fromFile{targets: t, options: o, name: o.from}
	before := len(t.list)
	if o.from == "-" {
		f.name = "standard input"
		if term.IsTerminal(int(os.Stdin.Fd())) {
			sayMarked(good, "Reading serial numbers or certificates from the terminal, until Ctrl-D on a line of its own")
		}
	}
	// There is little but the targets themselves in memory, and no pointer in
	// them: to collect often costs nothing, and saves half of it.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	read := make(chan error, 1)
	go func() { read <- f.open() }()
	select {
	case err := <-read:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return errInterrupted
	}
	for _, c := range f.issuers {
		sayMarked(warn, "%s, line %d: left out the certificate of a CA (%s)%s", f.name, c.line, c.subject, timesMore(c.times-1))
	}
	added := len(t.list) - before
	if added+f.repeated == 0 {
		return f.nothing()
	}
	what := count(added, "certificate", "certificates")
	if f.repeated > 0 {
		what += fmt.Sprintf(" (%s left out)", count(f.repeated, "repetition", "repetitions"))
	}
	saySelected("From", f.name+", "+what)
	return nil
}

func timesMore(n int) string {
	if n == 0 {
		return ""
	}
	return ", here and " + count(n, "more time", "more times")
}

// nothing says what is in a file that names no certificate.
func (f *fromFile) nothing() error {
	switch {
	case len(f.issuers) > 0:
		return usagef("%s holds certificates of CAs only", f.name).hint("step-ca revokes the certificates that it issues, not those of CAs")
	case f.otherPEM != "":
		return usagef("%s holds no certificate, but PEM of type %q", f.name, clip(f.otherPEM, 64)).hint(kindHint)
	}
	return usagef("%s names no certificate at all", f.name).hint("has the program that should have written it failed?").hint(kindHint)
}

// open opens and reads the file, which may be standard input.
func (f *fromFile) open() error {
	in := os.Stdin
	if f.options.from != "-" {
		var err error
		if in, err = os.Open(f.options.from); err != nil {
			return usagef("reading what to revoke: %w", err)
		}
		defer in.Close()
	}
	return f.read(withoutMark(in))
}

// withoutMark passes over a byte-order mark, which may tell that a text is in
// UTF-16, as Windows PowerShell writes it.
func withoutMark(in io.Reader) io.Reader {
	return transform.NewReader(in, unicode.BOMOverride(encoding.Nop.NewDecoder()))
}

func (f *fromFile) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		f.line++
		// Files with a byte-order mark each may have been joined.
		if err := f.take(bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), []byte("\ufeff")))); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return usagef("%s, line %d has more than %d bytes", f.name, f.line+1, maxLine).hint(kindHint)
	case err != nil:
		return usagef("reading what to revoke: %w", err)
	case f.block != nil:
		return usagef("%s, line %d: the PEM block that begins here has no end", f.name, f.blockLine).hint("is the file complete?")
	}
	return f.notList
}

// take takes one line.
func (f *fromFile) take(line []byte) error {
	begins := bytes.HasPrefix(line, []byte("-----BEGIN "))
	switch {
	case f.block != nil:
		return f.takeBlock(line)
	case begins && f.kind != kindJSON:
		if f.kind == kindList || f.wanted {
			return f.mixed()
		}
		f.block, f.blockLine = append(append(make([]byte, 0, 4<<10), line...), '\n'), f.line
		return nil
	case bytes.Contains(line, []byte("-----BEGIN CERTIFICATE")), bytes.Contains(line, []byte("-----END CERTIFICATE")):
		return usagef("%s, line %d: a certificate that does not begin or end on a line of its own", f.name, f.line).hint("is there a line break missing?")
	case f.kind == kindPEM && isWanted(line):
		return f.mixed()
	case f.kind == kindPEM:
		return nil
	case f.notList != nil:
		f.wanted = f.wanted || isWanted(line)
		if f.text += len(line) + 1; f.text > maxText {
			return f.notList
		}
		return nil
	}
	text, _, _ := bytes.Cut(line, []byte("#"))
	if f.kind == kindJSON || len(text) > 0 && text[0] == '{' && f.kind == kindUnknown {
		text = line // a # may stand in a string
		if bytes.HasPrefix(line, []byte("#")) {
			text = nil
		}
	}
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
		return nil
	case f.kind == kindJSON, f.kind == kindUnknown && text[0] == '{':
		f.kind = kindJSON
		return f.takeObject(text)
	}
	f.notList = f.takeSerial(string(text))
	if f.notList == nil {
		f.kind = kindList
	}
	return nil
}

// isWanted tells whether a line among certificates is no mere text, but names
// what somebody wants revoked. Numbers with colons are a part of what openssl
// says about a certificate.
func isWanted(line []byte) bool {
	text, _, _ := strings.Cut(string(line), "#")
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, `{"serial"`) {
		return true
	}
	if !isDecimal(text) && !hexSerial.MatchString(text) {
		return false
	}
	serial, err := parseSerial(text)
	return err != nil || !serial.small()
}

// mixed is the error for a file with serial numbers and certificates: one of
// them may be mere text.
func (f *fromFile) mixed() error {
	if f.notList != nil {
		return f.notList
	}
	return usagef("%s, line %d: serial numbers and certificates in one file", f.name, f.line).
		hint("a file of --from holds the ones or the others; more can be named with --cert and as arguments")
}

// like is what may be shown of a line that is no serial number: at most what
// has the form of 20 octets.
var like = regexp.MustCompile(`^[-+]?(0[xX])?([0-9_]{1,60}|[0-9a-fA-F_]{1,42}|[0-9a-fA-F:]{1,62})$`)

// takeSerial takes a line of a list.
func (f *fromFile) takeSerial(text string) error {
	serial, err := parseSerial(text)
	switch {
	case err != nil && !like.MatchString(text):
		return usagef("%s, line %d is not a serial number", f.name, f.line).hint(kindHint)
	case err == nil:
		err = f.options.checkSize(serial)
	}
	if err != nil {
		var p *problem
		errors.As(err, &p)
		p.error = fmt.Errorf("%s, line %d: %w", f.name, f.line, p.error)
		return p
	}
	f.addOne(serial, nil)
	return nil
}

func (f *fromFile) addOne(serial serialNumber, cert *certificate) {
	if !f.add(serial, cert) {
		f.repeated++
	}
}

// takeBlock takes a line of a PEM block, and at its end the certificate. The
// certificates of CAs, and keys, which often stand beside a certificate, are
// left out.
func (f *fromFile) takeBlock(line []byte) error {
	if bytes.HasPrefix(line, []byte("-----BEGIN ")) || len(f.block)+len(line) > maxBlock {
		return usagef("%s, line %d: the PEM block that begins here has no end", f.name, f.blockLine).hint("is the file complete?")
	}
	f.block = append(append(f.block, line...), '\n')
	if !bytes.HasPrefix(line, []byte("-----END ")) {
		return nil
	}
	block, _ := pem.Decode(f.block)
	f.block = nil
	malformed := usagef("%s, line %d: the certificate that begins here is malformed", f.name, f.blockLine)
	switch {
	case block == nil:
		return malformed
	case strings.HasSuffix(block.Type, "KEY"), strings.HasSuffix(block.Type, "PARAMETERS"):
		f.kind, f.notList, f.otherPEM = kindPEM, nil, block.Type
		return nil
	case block.Type != "CERTIFICATE":
		return usagef("%s, line %d: PEM of type %q, and not a certificate", f.name, f.blockLine, clip(block.Type, 64)).hint(kindHint)
	}
	f.kind, f.notList = kindPEM, nil
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return malformed
	}
	serial, ok := serialOf(cert.SerialNumber)
	switch {
	case cert.IsCA:
		f.leaveOut(cert)
	case !ok:
		return usagef("%s, line %d: the certificate that begins here has no valid serial number", f.name, f.blockLine).hint(serialBounds)
	default:
		f.addOne(serial, certificateOf(cert, fmt.Sprintf("%s, line %d,", f.name, f.blockLine)))
	}
	return nil
}

// leaveOut notes the certificate of a CA, once for all times that it is there.
func (f *fromFile) leaveOut(cert *x509.Certificate) {
	sum := sha256.Sum256(cert.Raw)
	for _, c := range f.issuers {
		if c.sum == sum {
			c.times++
			return
		}
	}
	f.issuers = append(f.issuers, &leftOut{sum, cert.Subject.String(), f.blockLine, 1})
}

// takeObject takes one of our own JSON lines. What counts is its serial number;
// the rest must agree with this run: the CA and, of a plan, the reason.
func (f *fromFile) takeObject(line []byte) error {
	var object struct {
		Journal    int    `json:"journal"`
		Serial     string `json:"serial"`
		Status     status `json:"status"`
		CA         string `json:"ca"`
		ReasonCode *int   `json:"reasonCode"`
		Reason     string `json:"reason"`
	}
	if err := json.Unmarshal(line, &object); err != nil {
		return usagef("%s, line %d is not one of our JSON objects", f.name, f.line).hint(kindHint)
	}
	if object.CA != "" && !f.options.isCA(object.CA) && !f.options.allowUnknown {
		return usagef("%s, line %d is about another CA, %s", f.name, f.line, object.CA).
			hint("this run is about %s; --allow-unknown revokes it here all the same", f.options.caName())
	}
	switch {
	case object.Journal != 0: // a journal's header
		return nil
	case object.Serial == "":
		return usagef("%s, line %d has no serial number", f.name, f.line).hint(kindHint)
	case object.Status == statusPlanned && object.ReasonCode != nil:
		if err := f.takeReason(*object.ReasonCode, object.Reason); err != nil {
			return err
		}
	}
	return f.takeSerial(object.Serial)
}

// takeReason makes a plan's reason that of the run. One on the command line, or
// in another line, must be the same.
func (f *fromFile) takeReason(code int, text string) error {
	o := f.options
	if !o.reasonGiven {
		r, err := parseReason(fmt.Sprint(code))
		if err != nil {
			return usagef("%s, line %d: %w", f.name, f.line, err)
		}
		o.reasonCode, o.reason, o.reasonGiven = r, text, true
	}
	if o.reasonCode.code != code || o.reason != text {
		return usagef("%s, line %d was planned with the reason %s, and not with %s", f.name, f.line,
			describeReason(code, text), describeReason(o.reasonCode.code, o.reason)).
			hint("one run has one reason; without --reason and --reasonCode it is that of the plan")
	}
	return nil
}

// isCA tells whether a name, as caName makes it, is that of this run's CA.
func (o *options) isCA(name string) bool {
	if o.offline {
		return name == o.caName()
	}
	u, err := parseURL(name)
	return err == nil && u.String() == o.caURL.String()
}

// describeReason writes a reason for a person.
func describeReason(code int, text string) string {
	if text == "" {
		return reasonName(code)
	}
	return reasonName(code) + " (" + text + ")"
}
