package ui

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manifoldco/promptui"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"Zoë's ✔ 証明書 {{.}} %d", "Zoë's ✔ 証明書 {{.}} %d"},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x1b[31mred\x07", `\x1b[31mred\a`},
		{"right\u202eleft\u200b", `right\u202eleft\u200b`},
		{"\u0085\u009b", `\u0085\u009b`},
		{"admin\u3164\ufe0f\u2800 \u05d0\u05d1 12", `admin\u3164\ufe0f\u2800 \u05d0\u05d1 12`},
		{"bad \xff\xfe utf", `bad \xff\xfe utf`},
		{"\uFFFD", "\uFFFD"},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("Printable(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// inFile returns what is printed on a screen that is a file.
func inFile(t *testing.T, print func(*screen)) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	print(newScreen(file, false))
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLines(t *testing.T) {
	t.Parallel()
	refused := problem.New("refused").Hint("ask %s", "the CA").Hint("look")
	for _, tt := range []struct {
		name, want string
		print      func(*screen)
	}{
		{"marks", "✔ CA: a\\nb\n⚠ x\n", func(s *screen) { s.print(s.good(), "CA: a\nb"); s.print(s.warn(), "x") }},
		{"an error", "error: a\\nb\n", func(s *screen) { s.error(errors.New("a\nb")) }},
		{"hints", "error: refused\nhint: ask the CA\nhint: look\n", func(s *screen) { s.error(refused) }},
		{"a hint is given once", "error: refused\nhint: ask the CA\nhint: look\nerror: 2: refused\nerror: other\nhint: wait\n", func(s *screen) {
			s.error(refused)
			s.error(problem.Wrap(refused, "2"))
			s.error(problem.New("other").Hint("look").Hint("wait"))
			s.hint("wait")
		}},
		{"joined", "error: refused\nhint: ask the CA\nhint: look\nerror: closing\n", func(s *screen) {
			s.error(problem.Default(errors.Join(refused, nil, errors.New("closing")), problem.Failed))
		}},
		{"farewell", "error: interrupted\n", func(s *screen) { s.farewell(problem.ErrInterrupted) }},
		{"farewell, while something is printed", "error: interrupted\n", func(s *screen) {
			_ = s.above(func() error { s.farewell(problem.ErrInterrupted); return nil })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := inFile(t, tt.print); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 targets", 1: "1 target", 2: "2 targets", 1234567: "1,234,567 targets"} {
		if got := Count(n, "target", "targets"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

// TestProgressLines shows what is printed where there is no terminal.
func TestProgressLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		total, done, failed int
		took                time.Duration
		want                string
	}{
		{total: 10, took: 10 * time.Second, want: "0 of 10 done, 0 failed, 0.0/s, time left unknown"},
		{total: 3500, done: 1000, failed: 10, took: 10 * time.Second, want: "1,000 of 3,500 done, 10 failed, 100/s, 25s left"},
		{total: 10, done: 4, failed: 4, took: 8 * time.Second, want: "4 of 10 done, 4 failed, 0.5/s, 12s left"},
		{total: 2000000, done: 20000, took: time.Second, want: "20,000 of 2,000,000 done, 0 failed, 20,000/s, 1m39s left"},
		{total: 2, done: 2, want: "2 of 2 done, 0 failed, 2,000/s, 0s left"},
	} {
		p := &Progress{total: tt.total}
		for i := range tt.done {
			p.Add(i < tt.failed)
		}
		if got := p.line(tt.took); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	lines := inFile(t, func(s *screen) {
		for _, total := range []int{1, 2} {
			p := newProgress(s, total)
			p.Show()
			p.Add(false)
			if done, took := p.End(); done != 1 || took < 0 || p.Interval() != lineInterval {
				t.Errorf("%d were done in %s; interval %s", done, took, p.Interval())
			}
		}
	})
	if lines != "0 of 2 done, 0 failed, 0.0/s, time left unknown\n" {
		t.Errorf("lines %q", lines)
	}
}

// TestReadKeys types lines that are not shown.
func TestReadKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys, want, left string
		err              error
	}{
		{keys: "secret\rnext", want: "secret", left: "next"},
		{keys: "secret \t\n", want: "secret"},
		{keys: "\r"},
		{keys: "se\x7f\x08\x08secre\x04t\r", want: "secret"},
		{keys: "né\x7fe\r", want: "ne"},
		{keys: "wrong\x15right\r", want: "right"},
		{keys: "\x04rest", err: io.EOF, left: "rest"},
		{keys: "sec\x03ret", err: promptui.ErrInterrupt, left: "ret"},
		{keys: "sec", err: io.EOF},
	} {
		in := strings.NewReader(tt.keys)
		got, err := readKeys(in)
		var left bytes.Buffer
		_, _ = in.WriteTo(&left)
		if string(got) != tt.want || !errors.Is(err, tt.err) || left.String() != tt.left {
			t.Errorf("%q: %q, %v, left %q", tt.keys, got, err, left.String())
		}
	}
}

// TestReadKey reads keys, and no byte beyond them.
func TestReadKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys string
		want []rune
		err  error
	}{
		{"aé証\r", []rune{'a', 'é', '証', keyEnter}, io.EOF},
		{"\x1b[D\x1bOC\x1b[1~\x1b[F\x1b[3~", []rune{keyLeft, keyRight, keyHome, keyEnd, keyDelete}, io.EOF},
		{"\x1b[200~1\n\x1b[201~", []rune{keyPaste, '1', '\n', keyPasted}, io.EOF},
		{"\x1b[1;5D\x1bx2\x1b[" + strings.Repeat("9", 20), []rune{keyUnknown, keyUnknown, '2', keyUnknown, '9', '9', '9'}, io.EOF},
		{"\xff1\xc3", []rune{'\uFFFD', '1'}, io.EOF},
		{"\x1b[", nil, io.EOF},
	} {
		in := strings.NewReader(tt.keys)
		var got []rune
		key, err := readKey(in)
		for ; err == nil; key, err = readKey(in) {
			got = append(got, key)
		}
		if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%q: %q, %v; want %q", tt.keys, got, err, tt.want)
		}
	}
}
