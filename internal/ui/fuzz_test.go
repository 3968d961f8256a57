package ui

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzPrintable makes texts printable: nothing in them can do anything but appear
// where it stands, what is printable stays as it is, and what is not can be told.
func FuzzPrintable(f *testing.F) {
	for _, text := range []string{"CN=mike", "\x1b[2J\r\n\x00\x7f\u0085", "\u202emike", "\xff\xfe\xc0\x80", "\ufffd", "אב", "\U0001d159\u2800\u3164", `\u0007 '"`} {
		f.Add(text)
	}
	file, err := os.Create(filepath.Join(f.TempDir(), "stderr"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = file.Close() })
	out := newScreen(file, false) // one, because it writes for as long as the program runs
	f.Fuzz(func(t *testing.T, text string) {
		defer bounded()()
		shown := Printable(text)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !problem.IsPlain(r) }) || strings.ContainsFunc(shown, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", text, shown)
		}
		if Printable(shown) != shown {
			t.Errorf("%q is shown as %q, and that as %q", text, shown, Printable(shown))
		}
		if again, err := strconv.Unquote(`"` + strings.ReplaceAll(shown, `"`, `\"`) + `"`); err == nil && !strings.ContainsAny(text, `\"`) && again != text {
			t.Errorf("%q is shown as %q, which stands for %q", text, shown, again)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		out.print("", text)
		size, err := file.Seek(0, io.SeekCurrent)
		printed := make([]byte, size)
		if _, readErr := file.ReadAt(printed, 0); err != nil || readErr != nil || string(printed) != shown+"\n" {
			t.Errorf("%q is printed as %q, %v", text, printed, err)
		}
	})
}

// FuzzReadKeys types any keys. The line that is read has no more than was typed,
// and what comes after it is left.
func FuzzReadKeys(f *testing.F) {
	for _, keys := range []string{"secret\rnext", "se\x7f\x08\x08secre\x04t\r", "né\x7fe\r", "wrong\x15right\r", "sec\x03ret", "\x04", "\xff\x7f\x80\x08\n"} {
		f.Add([]byte(keys))
	}
	f.Fuzz(func(t *testing.T, keys []byte) {
		defer bounded()()
		in := bytes.NewReader(keys)
		line, err := readKeys(in)
		left, _ := io.ReadAll(in)
		read := keys[:len(keys)-len(left)]
		if end := bytes.IndexAny(keys, "\r\n"); err == nil && end != len(read)-1 || end >= 0 && len(read) > end+1 {
			t.Errorf("of %q, %q is read", keys, read)
		}
		if len(line) > len(read) || bytes.ContainsAny(line, "\x03\x15\x7f\r\n") {
			t.Errorf("%q is read as %q", keys, line)
		}
	})
}
