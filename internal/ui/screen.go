package ui

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// A screen is where a person reads: a terminal, or a file that somebody reads
// later.
//
// At a terminal its bottom line may show a progress bar while other lines appear
// above. The cursor rests at the beginning of that line: if the terminal becomes
// so narrow that the line is wrapped, the cursor still stands before all of it.
type screen struct {
	file     *os.File
	out      *stream // to that file
	plain    bool    // no escape sequences, even at a terminal
	coloured bool    // marks are coloured

	mu     sync.Mutex // for what follows, and for the order of what is printed
	bottom string     // the bottom line, or empty
	width  int        // of the terminal that the bottom line was made for
	hints  map[string]bool
}

func newScreen(file *os.File, plain bool) *screen {
	s := &screen{file: file, out: newStream(file), plain: plain, hints: map[string]bool{}}
	s.coloured = !plain && s.isTerminal()
	return s
}

func (s *screen) isTerminal() bool { return term.IsTerminal(int(s.file.Fd())) }

// columns returns how wide the terminal is.
func (s *screen) columns() int {
	width, _, err := term.GetSize(int(s.file.Fd()))
	if err != nil || width < 2 {
		return 80
	}
	return width
}

// clearDown clears the terminal from the beginning of the cursor's line.
const clearDown = "\r\x1b[J"

// setBottom replaces the bottom line; an empty text removes it.
func (s *screen) setBottom(text string, width int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before string
	if s.bottom != "" {
		before = clearDown
	}
	if s.bottom, s.width = text, width; text != "" {
		text += "\r"
	}
	fmt.Fprint(s.out, before+text)
}

// above calls a function that prints whole lines, which then stand above the
// bottom line. In a terminal that has become narrower the bottom line is not
// printed again until it changes: it would be wrapped.
func (s *screen) above(print func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bottom == "" {
		return print()
	}
	fmt.Fprint(s.out, clearDown)
	err := print()
	if s.columns() >= s.width {
		fmt.Fprint(s.out, s.bottom+"\r")
	}
	return err
}

// farewell prints an error in place of the bottom line. Whoever holds the lock
// may wait for a reader that never comes: then the bottom line stays.
func (s *screen) farewell(err error) {
	var before string
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		if s.bottom != "" {
			before = clearDown
		}
	}
	patiently(func() { fmt.Fprintln(s.file, before+"error:", Printable(err.Error())) })
}

// isNewHint tells whether a hint was not printed before, and takes it for
// printed.
func (s *screen) isNewHint(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.hints[text]
	s.hints[text] = true
	return !known
}
