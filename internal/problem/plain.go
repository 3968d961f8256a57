package problem

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
)

// blank are symbols that look like nothing: the empty Braille pattern and the
// null note head. No property of Unicode tells them from visible ones.
const (
	blankBraille = '\u2800'
	blankNote    = '\U0001d159'
)

// IsPlain tells whether a character may be shown, and kept in a line of JSON, as
// it is: it must appear, and only where it stands. What does not appear could
// make one name look like another (Unicode, Default_Ignorable_Code_Point).
//
// Letters and digits that are written from right to left (Bidi_Class R, AL and
// AN) are legitimate in a name, and are not plain all the same: they reorder the
// digits and signs next to them, so that another serial number could seem to be
// meant. Isolates (U+2068 and U+2069) would keep such a name readable, but only
// where they are known. Many terminals reorder text and do not know them, and in
// a log or in JSON they would be invisible characters of our own.
func IsPlain(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= ' ' && r != '\x7f'
	case !unicode.IsPrint(r), r == blankBraille, r == blankNote,
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
		return false
	}
	properties, _ := bidi.LookupRune(r)
	switch properties.Class() {
	case bidi.R, bidi.AL, bidi.AN:
		return false
	}
	return true
}
