package ui

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/manifoldco/promptui"
	"golang.org/x/term"
)

// Prompts for terminals without escape sequences, which line editing needs.

// ask asks for a line of text until check accepts it.
func (t terminal) ask(q question, check func(string) error) (string, error) {
	if q.help != "" {
		t.write(Printable(q.help) + "\n")
	}
	for lines := bufio.NewReader(t.in); ; {
		t.write(Printable(q.text) + ": ")
		line, err := lines.ReadString('\n')
		if err != nil {
			fmt.Fprintln(t.out)
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if err = check(line); err == nil {
			return line, nil
		}
		t.explain(err, "\n")
	}
}

// choose asks for the number of an item and returns its index.
func (t terminal) choose(text string, items []string) (i int, err error) {
	for i, item := range items {
		fmt.Fprintf(t.out, "%3d  %s\n", i+1, Printable(item))
	}
	_, err = t.ask(question{text: fmt.Sprintf("%s [1-%d]", text, len(items))}, func(s string) error {
		if i, err = strconv.Atoi(strings.TrimSpace(s)); err != nil || i < 1 || i > len(items) {
			return fmt.Errorf("%q is not one of the numbers", s)
		}
		return nil
	})
	return i - 1, err
}

// askHidden asks for a line that is not shown, not even if it is typed as soon
// as the question appears.
func (t terminal) askHidden(q question) ([]byte, error) {
	state, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = term.Restore(int(t.in.Fd()), state)
		fmt.Fprintln(t.out)
	}()
	t.write(t.lead(q, "", 0))
	return readKeys(t.in)
}

// Keys as a terminal in raw mode sends them (ASCII).
const (
	keyCtrlA     = 0x01
	keyCtrlB     = 0x02
	keyCtrlC     = 0x03
	keyCtrlD     = 0x04
	keyCtrlE     = 0x05
	keyCtrlF     = 0x06
	keyCtrlH     = 0x08
	keyCtrlK     = 0x0b
	keyEnter     = 0x0d
	keyCtrlU     = 0x15
	keyEscape    = 0x1b
	keyBackspace = 0x7f
)

// readKeys reads a line from a terminal in raw mode, without white space at its
// end. It reads no byte beyond the line. Package term has no replacement:
// ReadPassword waits on after Ctrl-D, and a Terminal takes Ctrl-C for Ctrl-D.
func readKeys(in io.Reader) ([]byte, error) {
	var line []byte
	for key := make([]byte, 1); ; {
		if _, err := io.ReadFull(in, key); err != nil {
			return nil, err
		}
		switch key[0] {
		case keyCtrlC:
			return nil, promptui.ErrInterrupt
		case '\r', '\n':
			return bytes.TrimRightFunc(line, unicode.IsSpace), nil
		case keyCtrlH, keyBackspace:
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		case keyCtrlU:
			line = nil
		case keyCtrlD:
			if len(line) == 0 {
				return nil, io.EOF
			}
		default:
			line = append(line, key[0])
		}
	}
}
