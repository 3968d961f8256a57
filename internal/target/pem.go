package target

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func isBegin(line []byte) bool { return bytes.HasPrefix(line, []byte("-----BEGIN ")) }

// takeProse takes a line of other text, before the first PEM block or between two
// of them. One that names what is to be revoked is an error, before the first
// block as soon as it is clear that there is one: until then the file may be a
// list with mistakes in it.
func (r *reader) takeProse(line []byte) error {
	wants := r.prose.wants(line)
	if r.state == inPEM {
		if wants {
			return r.mixed(r.line)
		}
		return nil
	}
	if wants {
		r.noteNumber()
	}
	if r.proseBytes += len(line) + 1; r.proseBytes > maxProse {
		return r.badLines()
	}
	r.checkListed(line)
	return nil
}

// checkListed notes what is wrong with a line of prose, if the file was to be a list.
// It adds no target: the line may be about a certificate that follows.
func (r *reader) checkListed(line []byte) {
	text := withoutComment(line)
	switch {
	case text == "":
	case !r.onlyPEM:
		_, err := r.parse(text)
		if err != nil {
			r.wrong(err)
		}
		if r.log == nil && logLine.MatchString(text) {
			r.log = err
		}
	case len(r.bad) == 0:
		r.wrong(problem.New("%s is not a PEM file", r.name).Hint("in a directory --from reads only PEM files: step certificate format turns DER into PEM"))
	}
}

// noteNumber notes where the first number stands.
func (r *reader) noteNumber() {
	if r.numberLine == 0 {
		r.numberLine = r.line
	}
}

// mixed is the error for a file with serial numbers and certificates.
func (r *reader) mixed(line int) error {
	return r.errorAt(line, ": serial numbers and certificates in one file").
		Hint("a file of --from holds either serial numbers or certificates; --cert and arguments can name more").
		Hint("a line that begins with # is skipped")
}

// beginBlock takes the first line of a PEM block.
func (r *reader) beginBlock(line []byte) error {
	switch {
	case r.state == inList && r.numberLine > 0, r.state == inTable:
		return r.mixed(r.line)
	case r.state == inProse && r.numberLine > 0:
		return r.mixed(r.numberLine)
	}
	r.prose = prose{}
	r.block, r.blockLine = append(append(make([]byte, 0, 4<<10), line...), '\n'), r.line
	return nil
}

// takeBlock takes another line of a PEM block, and after the last one what the
// block holds.
func (r *reader) takeBlock(line []byte) error {
	if isBegin(line) || len(r.block)+len(line) > maxBlock {
		return r.noEnd()
	}
	r.block = append(append(r.block, line...), '\n')
	if !bytes.HasPrefix(line, []byte("-----END ")) {
		return nil
	}
	block, _ := pem.Decode(r.block)
	r.block = nil
	switch {
	case block == nil:
		return r.malformed()
	case strings.HasSuffix(block.Type, "KEY"), strings.HasSuffix(block.Type, "PARAMETERS"):
		r.otherPEM = block.Type // which often stands beside its certificate
	case block.Type != "CERTIFICATE":
		return r.errorAt(r.blockLine, ": PEM of type %.64q, and not a certificate", block.Type).Hint(kindHint)
	default:
		if err := r.takeCertificate(block.Bytes); err != nil {
			return err
		}
	}
	r.state, r.bad = inPEM, nil
	return nil
}

func (r *reader) noEnd() error {
	return r.errorAt(r.blockLine, ": the PEM block that begins here has no end").Hint("is the file complete?")
}

func (r *reader) malformed() error {
	return r.errorAt(r.blockLine, ": the certificate that begins here is malformed")
}

// takeCertificate adds the target with a certificate. It leaves out the
// certificate of a CA.
func (r *reader) takeCertificate(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return r.malformed()
	}
	serial, ok := SerialOf(cert.SerialNumber)
	switch {
	case cert.IsCA:
		r.leaveOut(cert)
		return nil
	case !ok:
		return r.errorAt(r.blockLine, ": the certificate that begins here has no valid serial number").Hint(serialBounds)
	}
	return r.add(r.blockLine, serial, certificateIn(cert, fmt.Sprintf("%s, line %d,", r.name, r.blockLine)))
}

// leftOut is the certificate of a CA that stands between others.
type leftOut struct {
	sum     [sha256.Size]byte
	subject string
	file    string // where it stands first
	line    int
	times   int
}

// leaveOut notes the certificate of a CA, or that it is there once more.
func (r *reader) leaveOut(cert *x509.Certificate) {
	r.named = true
	sum := sha256.Sum256(cert.Raw)
	for _, ca := range r.leftOut {
		if ca.sum == sum {
			ca.times++
			return
		}
	}
	r.leftOut = append(r.leftOut, &leftOut{sum: sum, subject: cert.Subject.String(), file: r.name, line: r.blockLine, times: 1})
}

// String writes a line for a person.
func (ca *leftOut) String() string {
	text := fmt.Sprintf("%s, line %d: left out a CA certificate (%s)", ca.file, ca.line, ca.subject)
	if ca.times > 1 {
		text += ", here and " + count(ca.times-1, "more time", "more times")
	}
	return text
}
