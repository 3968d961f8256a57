package problem

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// FuzzClean puts a part of a secret into a text, written in any of the encodings.
// Nothing is left of it that gives something away, as it is or behind escapes.
func FuzzClean(f *testing.F) {
	var names []string
	for name := range encodings {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := range names {
		f.Add(secret, "blocked: ", " (see 1234567890)", uint8(10), uint8(90), uint8(i))
	}
	f.Add("correct horse \"battery\" staple", "%", "\\", uint8(0), uint8(30), uint8(0))
	f.Add("line\r\nby\tline\r\nby\tline", "no: ", ".", uint8(0), uint8(30), uint8(slices.Index(names, "JSON")))
	f.Add("ünd so weiter", "&am", "p;#x41;", uint8(0), uint8(30), uint8(1))
	f.Fuzz(func(t *testing.T, sent, before, after string, from, to, how uint8) {
		defer time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop()
		if len(sent)+len(before)+len(after) > 2000 {
			return
		}
		begin := min(int(from), len(sent))
		part := sent[begin:max(begin, min(int(to), len(sent)))]
		written := encodings[names[int(how)%len(names)]](part)
		shown := Clean(before+written+after, sent)
		// HTML has no way to write some control characters.
		isText := utf8.ValidString(part) && !strings.ContainsFunc(part, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) })
		if len(part) >= 2*minPart && isText && strings.Contains(shown, written) {
			t.Errorf("%q is left in %q", written, shown)
		}
		for text := range strings.SplitSeq(strings.ReplaceAll(shown, string(password), string(token)), string(token)) {
			for i := range len(text) - minPart + 1 {
				if strings.Contains(sent, text[i:i+minPart]) {
					t.Errorf("%q is left in %q", text[i:i+minPart], shown)
				}
			}
			if jwt.MatchString(text) {
				t.Errorf("what looks like a token is left in %q", shown)
			}
		}
	})
}
