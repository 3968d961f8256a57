package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Escape sequences of terminals (xterm's "Control Sequences").
const (
	clearRow      = "\r\x1b[K"
	saveCursor    = "\x1b7"
	restoreCursor = "\x1b8"
	pasteOn       = "\x1b[?2004h" // a paste stands between two sequences, which keeps its line breaks from answering
	pasteOff      = "\x1b[?2004l"
)

// maxAnswer bounds an answer, in characters. What goes beyond is dropped; no question
// accepts an answer of that length.
const maxAnswer = 1000

// minRoom is how many columns an answer needs beside its question.
const minRoom = 6

// A line is an answer that is being typed at a terminal in raw mode, behind its
// label. It stays in one row of the terminal, whatever is typed, and scrolls in it.
type line struct {
	terminal
	label   string
	text    []rune
	at      int // the cursor stands before this one
	pasting bool
}

// edit asks for a line of text until check accepts it.
func (t terminal) edit(q question, check func(string) error) (string, error) {
	state, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return "", err
	}
	defer func() { _ = term.Restore(int(t.in.Fd()), state) }()
	t.write(pasteOn)
	defer t.write(pasteOff)
	label := t.lead(q, asking()+" ", minRoom)
	for {
		l := line{terminal: t, label: label}
		if err := l.read(); err != nil {
			t.write("\r\n")
			return "", err
		}
		answer := string(l.text)
		wrong := check(answer)
		if wrong == nil {
			t.write(clearRow + stderr.good() + " " + label + Printable(answer) + "\r\n") // all of it
			return answer, nil
		}
		t.write("\r\n")
		t.explain(wrong, "\r\n")
	}
}

// asking is the mark of a question that has no answer yet.
func asking() string { return stderr.mark("?", "34") }

func (t terminal) write(text string) { _, _ = io.WriteString(t.out, text) }

// explain says why an answer is not accepted.
func (t terminal) explain(wrong error, end string) {
	t.write(stderr.warn() + " " + Printable(wrong.Error()) + end)
	for _, hint := range problem.Hints(wrong) {
		t.write("hint: " + Printable(hint) + end)
	}
}

// lead writes what stands on the lines before an answer, and returns the label for
// the answer's own line: the question, unless there is no room behind it.
func (t terminal) lead(q question, mark string, room int) (label string) {
	if q.help != "" {
		t.write(Printable(q.help) + "\r\n")
	}
	label = Printable(q.text) + ": "
	if utf8.RuneCountInString(label)+len("? ")+room <= t.columns() {
		return label
	}
	t.write(mark + Printable(q.text) + "\r\n")
	return q.short + ": "
}

// columns returns how wide the terminal is.
func (t terminal) columns() int {
	if width, _, err := term.GetSize(int(t.out.Fd())); err == nil && width > 1 {
		return width
	}
	return 80
}

// read reads keys until Enter.
func (l *line) read() error {
	for {
		l.draw()
		key, err := readKey(l.in)
		if err != nil {
			return err
		}
		if l.pasting && key >= 0 && key < ' ' {
			key = ' '
		}
		switch key {
		case keyEnter, '\n':
			return nil
		case keyCtrlC:
			return problem.ErrInterrupted
		case keyCtrlD:
			if len(l.text) == 0 {
				return io.EOF
			}
			l.cut(l.at, l.at+1)
		default:
			l.press(key)
		}
	}
}

// press does what a key does to the text.
func (l *line) press(key rune) {
	switch key {
	case keyPaste, keyPasted:
		l.pasting = key == keyPaste
	case keyLeft, keyCtrlB:
		l.at = max(l.at-1, 0)
	case keyRight, keyCtrlF:
		l.at = min(l.at+1, len(l.text))
	case keyHome, keyCtrlA:
		l.at = 0
	case keyEnd, keyCtrlE:
		l.at = len(l.text)
	case keyBackspace, keyCtrlH:
		l.cut(l.at-1, l.at)
	case keyDelete:
		l.cut(l.at, l.at+1)
	case keyCtrlU:
		l.cut(0, l.at)
	case keyCtrlK:
		l.cut(l.at, len(l.text))
	default:
		if key >= ' ' && len(l.text) < maxAnswer {
			l.text = append(l.text[:l.at], append([]rune{key}, l.text[l.at:]...)...)
			l.at++
		}
	}
}

// cut takes characters out of the text.
func (l *line) cut(from, to int) {
	if from < 0 || to > len(l.text) {
		return
	}
	l.text = append(l.text[:from], l.text[to:]...)
	l.at = from
}

// draw draws the line in the row of the cursor, of which the last column stays empty,
// and of the text as much around the cursor as there is room for.
func (l *line) draw() {
	room := max(l.columns()-len("? ")-utf8.RuneCountInString(l.label)-1, 1)
	begin, end := l.at, l.at
	used := 1 // for the cursor behind the text, or for an ellipsis
	for begin > 0 && used+width(l.text[begin-1]) <= room {
		begin--
		used += width(l.text[begin])
	}
	for end < len(l.text) && used+width(l.text[end]) <= room {
		used += width(l.text[end])
		end++
	}
	before := Printable(string(l.text[begin:l.at]))
	if begin > 0 && begin < l.at {
		before = "…" + Printable(string(l.text[begin+1:l.at]))
	}
	row := clearRow + asking() + " " + l.label + before
	if end > l.at {
		row += saveCursor + Printable(string(l.text[l.at:end])) + restoreCursor
	}
	l.write(row)
}

// width returns how many columns a character may take, or what is shown in its place.
func width(r rune) int {
	if shown := Printable(string(r)); len(shown) == 1 || len(shown) > utf8.UTFMax {
		return len(shown)
	}
	return 2
}

// Keys that terminals send as escape sequences.
const (
	keyUnknown rune = -1 - iota
	keyLeft
	keyRight
	keyHome
	keyEnd
	keyDelete
	keyPaste
	keyPasted
)

// sequences are keys by what follows ESC and [ or O.
var sequences = map[string]rune{
	"D": keyLeft, "C": keyRight, "H": keyHome, "F": keyEnd, "1~": keyHome, "7~": keyHome, "4~": keyEnd, "8~": keyEnd,
	"3~": keyDelete, "200~": keyPaste, "201~": keyPasted,
}

// readKey reads a key, or a character, and no byte beyond it.
func readKey(in io.Reader) (rune, error) {
	bytes := make([]byte, 0, utf8.UTFMax)
	for {
		b, err := readByte(in)
		switch {
		case err != nil:
			return 0, err
		case b == keyEscape && len(bytes) == 0:
			return readSequence(in)
		}
		if bytes = append(bytes, b); utf8.FullRune(bytes) {
			r, _ := utf8.DecodeRune(bytes)
			return r, nil
		}
	}
}

// readSequence reads the rest of an escape sequence (ECMA-48, section 5.4).
func readSequence(in io.Reader) (rune, error) {
	b, err := readByte(in)
	if err != nil || b != '[' && b != 'O' {
		return keyUnknown, err
	}
	for text := ""; ; {
		if b, err = readByte(in); err != nil {
			return 0, err
		}
		if text += string(rune(b)); b >= '@' && b <= '~' || len(text) > 16 {
			if key, known := sequences[text]; known {
				return key, nil
			}
			return keyUnknown, nil
		}
	}
}

func readByte(in io.Reader) (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(in, b[:])
	return b[0], err
}

// shorten cuts a text so that it fits into so many columns.
func shorten(text string, columns int) string {
	var b strings.Builder
	used := 1 // for an ellipsis
	for _, r := range text {
		if used += width(r); used > columns {
			return fmt.Sprint(b.String(), "…")
		}
		b.WriteRune(r)
	}
	return text
}
