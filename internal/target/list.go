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
	case text[0] == '{' && !r.namesTargets:
		r.state = inObjects
		return r.takeObject(line) // with what stands after #: it may be in a string
	}
	if err := r.takeSerial(string(text)); err != nil {
		r.notAList, r.state = err, inProse
		return nil
	}
	r.namesTargets = true
	return nil
}

// showable matches lines that look like a serial number. Anything else might be
// a secret and is not quoted.
var showable = regexp.MustCompile(`^[-+]?(0[xX])?([0-9_]{1,60}|[0-9a-fA-F_]{1,42}|[0-9a-fA-F:]{1,62})$`)

// takeSerial adds the target with a serial number.
func (r *reader) takeSerial(text string) error {
	serial, err := ParseSerial(text)
	switch {
	case err != nil && !showable.MatchString(text):
		return r.errorAt(r.line, " is not a serial number").Hint(kindHint)
	case err == nil:
		err = r.sources.checkSize(serial)
	}
	if err != nil {
		return problem.Wrap(err, "%s, line %d", r.notes.Name, r.line)
	}
	r.add(serial, nil)
	return nil
}

// namesTarget tells whether a line among certificates is no mere text, but names
// what somebody wants revoked. Numbers with colons do not count: openssl prints
// them with a certificate.
func namesTarget(line []byte) bool {
	text, _, _ := strings.Cut(string(line), "#")
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, `{"serial"`) {
		return true
	}
	if !isDecimal(text) && !hexSerial.MatchString(text) {
		return false
	}
	serial, err := ParseSerial(text)
	return err != nil || !serial.isSmall()
}
