package target

import (
	"bytes"
	"regexp"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// withoutComment returns what a line of a list says.
func withoutComment(line []byte) string {
	text, _, _ := bytes.Cut(line, []byte("#"))
	return string(bytes.TrimSpace(text))
}

// takeListed takes a line of a list, or the first line that tells what kind of
// file this is.
func (r *reader) takeListed(line []byte) error {
	text := withoutComment(line)
	isFirst := r.numberLine == 0 && !r.onlyPEM
	switch {
	case text == "":
		return nil
	case isFirst && text[0] == '{':
		r.state = inObjects
		return r.takeObject(line) // with what stands after #: it may be in a string
	case isFirst && r.beginTable(string(bytes.TrimSpace(line))):
		return nil
	}
	serial, err := r.parse(text)
	if err != nil || r.onlyPEM {
		r.state = inProse
		return r.takeProse(line)
	}
	r.noteNumber()
	return r.add(r.line, serial, nil)
}

// takeSerial adds the target with a serial number that is not in a list.
func (r *reader) takeSerial(text string) error {
	serial, err := r.parse(text)
	if err != nil {
		r.wrong(err)
		return nil
	}
	return r.add(r.line, serial, nil)
}

// showable matches what certainly is a mistyped serial number. Anything else might
// be a secret, also hexadecimal digits ("openssl rand -hex 16"), and is not quoted.
var showable = regexp.MustCompile(`^([0-9]{1,60}|0[xX][0-9a-fA-F]{0,42})$`)

// parse reads a serial number. Its error names the line.
func (r *reader) parse(text string) (Serial, error) {
	serial, err := ParseSerial(text)
	if err == nil {
		err = r.sources.checkSize(serial)
	}
	switch {
	case err == nil:
		return serial, nil
	case showable.MatchString(text):
		return serial, problem.Wrap(err, "%s, line %d", r.name, r.line)
	case serial != Serial{}:
		return serial, r.errorAt(r.line, ": the serial number is too small for an X.509 certificate of step-ca").Hint(smallHint)
	}
	return serial, r.errorAt(r.line, " is not a serial number").Hint("%s", hintFor(text))
}

// A form is what a line that is no serial number may look like, and how to make one
// of it.
type form struct {
	like *regexp.Regexp
	hint string
}

// logLine matches a line of step-ca's log about a certificate.
var logLine = regexp.MustCompile(`(^|\s)serial=[0-9]{10,}\s`)

// forms are the forms in which others write serial numbers. The first one counts.
var forms = []form{
	{bareHexSerial, "write 0x in front if it is hexadecimal"},
	{regexp.MustCompile(`^[-+][1-9][0-9]*$`), noSign},
	{regexp.MustCompile(`^[0-9]*_[0-9_]*$`), noUnderscores},
	{regexp.MustCompile(`^[0-9]+[.,][0-9]+[eE]\+?[0-9]+$`), "a spreadsheet has rounded this number: format its column as text before the numbers come in"},
	{regexp.MustCompile(`^serial=[0-9a-fA-F]+$`), serialEquals},
	{logLine, "for step-ca's log: grep NAME FILE | grep -o ' serial=[0-9]*' | cut -d= -f2 prints the serial numbers of a host"},
	{regexp.MustCompile(`(?i)serial ?number: *(0x)?[0-9a-f]`), `only the number belongs there: sed -n 's/.*Serial Number: *\([0-9]*\).*/\1/p' FILE prints it`},
	{regexp.MustCompile(`^\[`), "JSON of other programs is not read: jq -r '.[]' FILE prints what is in an array, a line each"},
	{regexp.MustCompile(`^(["'])[^"']*["']$`), "write it without quotation marks"},
	{regexp.MustCompile(`[,;]`), "write one serial number a line; the first line of a CSV file names their column: " + columnNames},
	{regexp.MustCompile(`^[0-9a-fA-FxX:]{8,}\s+[0-9a-fA-FxX:]{8,}$`), "write one serial number a line"},
}

// serialEquals is for what openssl x509 -serial prints, and for a word of step-ca's
// log.
const serialEquals = "write the number alone: decimal as it is, as step-ca's log has it; hexadecimal with 0x in front, as in sed 's/^serial=/0x/' FILE for what openssl prints"

// hintFor says how to write what a line probably means, without a part of it.
func hintFor(text string) string {
	for _, f := range forms {
		if f.like.MatchString(text) {
			return f.hint
		}
	}
	return kindHint
}
