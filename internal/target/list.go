package target

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// takeListed takes a line of a list, or the first line that tells what kind of
// file this is.
func (r *reader) takeListed(line []byte) error {
	text, _, _ := bytes.Cut(line, []byte("#"))
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return nil
	case text[0] == '{' && r.numberLine == 0:
		r.state = inObjects
		return r.takeObject(line) // with what stands after #: it may be in a string
	}
	if err := r.takeSerial(string(text)); err != nil {
		r.notAList, r.state = err, inProse
		return r.takeProse(line)
	}
	r.noteNumber()
	return nil
}

// showable matches what certainly is a mistyped serial number. Anything else might
// be a secret, also hexadecimal digits ("openssl rand -hex 16"), and is not quoted.
var showable = regexp.MustCompile(`^([0-9]{1,60}|0[xX][0-9a-fA-F]{0,42})$`)

// takeSerial adds the target with a serial number.
func (r *reader) takeSerial(text string) error {
	serial, err := ParseSerial(text)
	if err == nil {
		err = r.sources.checkSize(serial)
	}
	switch {
	case err == nil:
		return r.add(serial, nil)
	case showable.MatchString(text):
		return problem.Wrap(err, "%s, line %d", r.notes.Name, r.line)
	case serial != Serial{}:
		return r.errorAt(r.line, ": the serial number is too small for an X.509 certificate of step-ca").Hint(smallHint)
	}
	return r.errorAt(r.line, " is not a serial number").Hint("%s", hintFor(text))
}

// hintFor says how to write what a line probably means, without a part of it.
func hintFor(text string) string {
	switch {
	case bareHexSerial.MatchString(text):
		return "write 0x in front if it is hexadecimal"
	case text != "" && strings.Contains("+-", text[:1]) && isDecimal(text[1:]):
		return noSign
	case isDecimal(strings.ReplaceAll(text, "_", "")):
		return noUnderscores
	}
	return kindHint
}
