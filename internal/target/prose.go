package target

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
)

// A prose is the text around PEM blocks. It knows how far the last line with a
// label is indented, while only dumps have followed it.
type prose struct {
	labelled bool
	indent   int
}

// wants tells whether a line names what somebody wants revoked: whether all of
// its words are numbers, in any form that a list takes or refuses as a mistyped
// serial number. What openssl and step print about a certificate is no such
// line: there a number stands behind its label ("Serial Number: 4660"), or as
// hexadecimal bytes below the label and further indented.
func (p *prose) wants(line []byte) bool {
	text, _, _ := bytes.Cut(line, []byte("#"))
	words, areNumbers := numbersIn(string(text))
	switch indent := len(line) - len(bytes.TrimLeft(line, " \t")); {
	case p.labelled && indent > p.indent && dumpLine.Match(line):
		return false
	case !areNumbers:
		p.labelled, p.indent = bytes.ContainsRune(line, ':'), indent
		return bytes.HasPrefix(bytes.TrimSpace(line), []byte("{")) && bytes.Contains(line, []byte(`"serial"`))
	case len(words) == 0, p.labelled && indent > p.indent && areBytes(words):
		return false
	}
	return true
}

// numberWord matches a number in decimal or hexadecimal. Words like "Ada" and
// "added" have no digit, and are too short for a serial number of step-ca; a
// word that is longer than 20 octets is a checksum.
var numberWord = regexp.MustCompile(`^[-+]?([0-9_]+|0[xX][0-9a-fA-F_]*|[a-fA-F]{0,7}[0-9][0-9a-fA-F_]{0,7}|[0-9a-fA-F_]{8,42}|([0-9a-fA-F]{2}:)+([0-9a-fA-F]{2})?)$`)

// numbersIn returns the words of a text, if all of them are numbers. Signs that
// set words apart do not count.
func numbersIn(text string) (words []string, areNumbers bool) {
	for word := range strings.FieldsFuncSeq(text, setsApart) {
		switch {
		case !strings.ContainsFunc(word, isLetterOrDigit):
		case !numberWord.MatchString(word):
			return nil, false
		default:
			words = append(words, word)
		}
	}
	return words, true
}

// setsApart tells whether a character stands between words, as white space,
// commas, quotation marks and brackets do.
func setsApart(r rune) bool {
	return !isLetterOrDigit(r) && !strings.ContainsRune("_:+-./=@%&$\\", r)
}

func isLetterOrDigit(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// dumpWord matches hexadecimal bytes, and how far into a dump they stand. No
// serial number in decimal is one.
var dumpWord = regexp.MustCompile(`^([0-9]{1,8}|[0-9a-fA-F:]*[a-fA-F:][0-9a-fA-F:]*)$`)

// dumpLine matches how openssl begins a line of a dump (BIO_dump). The same bytes
// follow as text, which may look like anything.
var dumpLine = regexp.MustCompile(`^[ \t]+[0-9a-f]{4,8} - [0-9a-f]{2}[ -]`)

func areBytes(words []string) bool {
	for _, word := range words {
		if !dumpWord.MatchString(word) {
			return false
		}
	}
	return true
}
