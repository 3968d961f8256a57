package main

// What the program says to a person, and how.
//
// What is meant for a person goes to standard error, in step's own look.
// Standard output is left to what was asked for: help, version, the table of a
// dry run, and JSON.
//
// A line is one line: whatever comes from certificates, files, flags or the CA
// is escaped before it is shown, so that it can neither start a new line nor
// move the cursor. Colour is for terminals that want it, and only for marks.
//
// An error is "error: " and what went wrong, in lower case without a full
// stop; then, where there is one, "hint: " and what to do about it. Nothing is
// claimed beyond what is known: revoked means that the CA has confirmed it.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"

	"golang.org/x/term"
)

// Exit codes, as DESIGN.md and the README list them.
const (
	exitOK          = 0
	exitFailed      = 1   // a target is not known to be revoked
	exitUsage       = 2   // found before the CA was contacted or opened
	exitIncomplete  = 3   // all are revoked, something beyond that is missing
	exitInterrupted = 130 // SIGINT or SIGTERM
)

// A problem is an error with the exit code it leads to and hints for a person.
type problem struct {
	error
	code  int
	hints []string
}

func (p *problem) Unwrap() error { return p.error }

// hint adds one line on what to do about the problem.
func (p *problem) hint(format string, args ...any) *problem {
	p.hints = append(p.hints, fmt.Sprintf(format, args...))
	return p
}

// usagef is a problem found before the CA was contacted or its database opened.
func usagef(format string, args ...any) *problem {
	return &problem{error: fmt.Errorf(format, args...), code: exitUsage}
}

// failf is a problem met with the CA or its database.
func failf(format string, args ...any) *problem {
	return &problem{error: fmt.Errorf(format, args...), code: exitFailed}
}

// errInterrupted ends a run that a signal or Ctrl-C at a prompt has stopped.
var errInterrupted = &problem{error: errors.New("interrupted"), code: exitInterrupted}

// exitCode is the exit code that err stands for.
func exitCode(err error) int {
	var p *problem
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &p):
		return p.code
	}
	return exitFailed
}

// A mark opens a line in the way step does.
type mark struct {
	sign  string
	color string // an SGR parameter
}

var (
	good = mark{"✔", "32"}
	warn = mark{"⚠", "33"}
)

// debugging is set by STEPDEBUG=1, as for step.
var debugging = os.Getenv("STEPDEBUG") == "1"

// colored tells whether marks on standard error may be coloured.
var colored = wantsColor(os.Stderr)

func wantsColor(f *os.File) bool { return !plain && term.IsTerminal(int(f.Fd())) }

// plain tells whether there shall be no escape sequences, at a terminal neither.
var plain = wantsPlain()

func wantsPlain() bool {
	_, noColor := os.LookupEnv("NO_COLOR")
	return noColor || os.Getenv("TERM") == "dumb"
}

func (m mark) String() string {
	if !colored {
		return m.sign
	}
	return "\x1b[" + m.color + "m" + m.sign + "\x1b[0m"
}

// say prints one line.
func say(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	_ = beside(func() error { _, err := fmt.Fprintln(os.Stderr, text); return err })
}

// sayMarked prints one line behind a mark.
func sayMarked(m mark, format string, args ...any) {
	text := m.String() + " " + printable(fmt.Sprintf(format, args...))
	_ = beside(func() error { _, err := fmt.Fprintln(os.Stderr, text); return err })
}

// saySelected prints what was chosen, by the user or because nothing else fits.
func saySelected(name, value string) { sayMarked(good, "%s: %s", name, value) }

// sayProblem prints an error and its hints.
func sayProblem(err error) {
	say("error: %v", err)
	var p *problem
	if errors.As(err, &p) {
		for _, hint := range p.hints {
			say("hint: %s", hint)
		}
	}
}

// sayDebug prints detail that only STEPDEBUG=1 asks for.
func sayDebug(format string, args ...any) {
	if debugging {
		say("debug: "+format, args...)
	}
}

// debugLog is a log for libraries, which know nothing of the rules here.
type debugLog struct{}

func (debugLog) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		sayDebug("%s", strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}

// printable escapes what could do anything but appear: control characters,
// line breaks, direction marks and other invisible characters, and bytes that
// are not UTF-8.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// printableJSON escapes in JSON what printable does, in JSON's own way: the
// data stay what they are.
func printableJSON(line []byte) string {
	var b strings.Builder
	for _, r := range string(line) {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// clip shortens s to at most n runes.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// printOut prints what was asked for on standard output.
func printOut(text string) error {
	if err := printLine(text); err != nil {
		return fmt.Errorf("writing to standard output: %w", err)
	}
	return nil
}

func printLine(text string) error {
	return beside(func() error { _, err := fmt.Print(text); return err })
}
