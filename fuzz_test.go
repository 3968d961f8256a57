package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzFlags gives any command line, a word on each line. Sorting it loses and adds
// no word, and changes nothing a second time; package flag sees the same flags as
// we do.
func FuzzFlags(f *testing.F) {
	for _, line := range []string{
		"4660\n--reason\nx\n4661", "--offline=false\n-f\n--\n--reason", "--reason=--offline\n-5", "--reason\n--nonsense", "-reason\nx\n-", "--token=eyJ\n--cert\nx", "--cert\na\n--cert=\nb",
		"--where\nsan=x\n--where=key=y\n--dry-run", "--concurrency\n-1\n--rate=x\n--timeout=5", "---reason=x", "--offline=maybe", "--=x", "-=\n--5=x", "--help\n-h", "--reasonCode=\n4660", "--reason\n--\n4660",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		defer bounded()()
		words := strings.Split(line, "\n")
		sorted, on, err := flagsFirst(words)
		if err != nil {
			return
		}
		want := slices.Clone(words)
		if i := slices.Index(sorted, "--"); !slices.Contains(words, "--") && i >= 0 {
			want = append(want, "--")
		}
		got := slices.Clone(sorted)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q became %q", words, sorted)
		}
		again, onAgain, err := flagsFirst(sorted)
		if err != nil || !slices.Equal(again, sorted) || len(onAgain) != len(on) {
			t.Errorf("%q became %q, and that %q, %v", words, sorted, again, err)
		}
		_ = checkLine(t, words...)
	})
}

// FuzzReason reads a reason code and a reason. A code that is read is read again
// by its number and by its name.
func FuzzReason(f *testing.F) {
	for _, r := range reasons {
		f.Add(strconv.Itoa(r.code), r.name)
		f.Add(strings.ToUpper(r.name), "")
	}
	for _, text := range []string{"key-compromise", "KEY_Compromise", "7", "-1", "99999999999999999999", "0x1", "+1", "01", " 1", "superceded", "\xff", "ſuperseded"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, code, text string) {
		defer bounded()()
		if r, err := parseReason(code); err == nil {
			for _, again := range []string{strconv.Itoa(r.Code), r.Name, strings.ToUpper(r.Name)} {
				if same, err := parseReason(again); err != nil || same != r {
					t.Errorf("%q is %v, and %q is %v, %v", code, r, again, same, err)
				}
			}
			if n, err := strconv.Atoi(code); err == nil && n != r.Code {
				t.Errorf("%q is %d", code, r.Code)
			}
		}
		kept, err := parseReasonText(text)
		if (err != nil) != (len(text) > revocation.MaxReason) || !utf8.ValidString(kept) || err == nil && utf8.ValidString(text) && kept != text {
			t.Errorf("%q is kept as %q, %v", text, kept, err)
		}
	})
}
