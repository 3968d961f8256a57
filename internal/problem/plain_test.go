package problem

import (
	"testing"
	"unicode"
)

func TestIsPlain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, runes string
		want        bool
	}{
		{"ASCII", " !09AZaz~", true},
		{"other letters, signs and numbers", "ëЖ証ไ✔…«»“”€½\uFFFD😀", true},
		{"a letter and its accent", "e\u0301", true},
		{"control characters", "\x00\t\n\r\x1b\x7f\u0085\u009b", false},
		{"other spaces", "\u00a0\u1680\u2003\u2028\u2029\u3000", false},
		{"directions and other formats", "\u00ad\u061c\u180e\u200b\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\ufff9\U0001d173\U000e0001\U000e0041", false},
		{"fillers", "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0", false},
		{"variation selectors", "\u180b\u180c\u180d\u180f\ufe00\ufe0f\U000e0100\U000e01ef", false},
		{"blanks", "\u2800\U0001d159", false},
		{"Hebrew, Arabic, Syriac, Thaana, N'Ko, Adlam", "א\u05d0ت\u0627\u0710\u0780\u07ca\U0001e900", false},
		{"Arabic digits, which sort other numbers", "\u0660\u06dd", false},
		{"not assigned, and private", "\u0378\ue000\U0010ffff", false},
	} {
		for _, r := range tt.runes {
			if IsPlain(r) != tt.want {
				t.Errorf("%s: %U is plain: %t", tt.name, r, !tt.want)
			}
		}
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if IsPlain(r) && !unicode.IsPrint(r) {
			t.Errorf("%U is plain, and cannot be printed", r)
		}
	}
}
