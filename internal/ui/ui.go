// Package ui is what the program says to a person and asks of one.
//
// Everything meant for a person goes to standard error, in step's own look.
// Standard output carries only what was asked for: help, the version, the table
// of a dry run, and JSON.
//
// A line is one line. Text from certificates, files, flags or the CA is escaped
// before it is shown, so it can neither start a new line nor move the cursor.
// Only marks are coloured, and only at a terminal that wants colour.
//
// An error is "error: " and what went wrong, in lower case and without a full
// stop, and then, if there is something to do about it, "hint: " and what to do.
// Nothing is claimed beyond what is known: revoked means that the CA has
// confirmed it.
package ui

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/smallstep/cli-utils/ui"
	"golang.org/x/term"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// stderr is where a person reads. It is a file of its own on standard error,
// because libraries, and prompts of this package, replace os.Stderr.
var stderr = newScreen(os.NewFile(uintptr(syscall.Stderr), "/dev/stderr"), wantsPlain())

// stdout is where programs read.
var stdout = newStream(os.Stdout)

// debugging is set by STEPDEBUG=1, as for step.
var debugging = os.Getenv("STEPDEBUG") == "1"

// wantsPlain tells whether the environment disables escape sequences
// (https://no-color.org).
func wantsPlain() bool {
	_, noColor := os.LookupEnv("NO_COLOR")
	return noColor || os.Getenv("TERM") == "dumb"
}

// Init prepares the terminal, and makes the log of libraries detail for
// debugging. When ctx ends, nobody waits long for a reader any more. The function
// that Init returns waits until everything is written, and puts the terminal
// back.
func Init(ctx context.Context) (restore func()) {
	log.SetFlags(0)
	log.SetOutput(debugLog{})
	ui.Init()
	context.AfterFunc(ctx, func() { close(hurry) })
	return func() {
		stdout.flush()
		stderr.out.flush()
		ui.Reset()
	}
}

// Say prints one line.
func Say(format string, args ...any) { stderr.print("", fmt.Sprintf(format, args...)) }

// Good prints a line behind the mark of a success.
func Good(format string, args ...any) { stderr.print(stderr.good(), fmt.Sprintf(format, args...)) }

// Warn prints a line behind the mark of a warning.
func Warn(format string, args ...any) { stderr.print(stderr.warn(), fmt.Sprintf(format, args...)) }

// Selected prints what the user has chosen, or the only choice there was.
func Selected(name, value string) { Good("%s: %s", name, value) }

// Error prints an error and its hints. It prints the errors that errors.Join has
// put together one after the other.
func Error(err error) { stderr.error(err) }

// Hint prints what to do, unless this run has printed the same hint before.
func Hint(text string) { stderr.hint(text) }

// Debug prints detail that only STEPDEBUG=1 asks for.
func Debug(format string, args ...any) {
	if debugging {
		Say("debug: "+format, args...)
	}
}

// Debugging tells whether Debug prints anything.
func Debugging() bool { return debugging }

// Farewell prints the last error of a process that is about to exit. It does not
// wait for anything that is being printed.
func Farewell(err error) { stderr.farewell(err) }

// Print prints on standard output what was asked for. The error names standard
// output.
func Print(text string) error {
	return stderr.above(func() error { _, err := fmt.Fprint(stdout, text); return err })
}

// Columns returns how wide the terminal is that standard output is, or 0 if that is
// none.
func Columns() int {
	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// StdinIsTerminal tells whether a person types what is read from standard input.
func StdinIsTerminal() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// print prints a line, behind a mark unless that is empty.
func (s *screen) print(mark, text string) {
	if mark != "" {
		mark += " "
	}
	text = mark + Printable(text)
	_ = s.above(func() error { _, err := fmt.Fprintln(s.out, text); return err })
}

func (s *screen) error(err error) {
	for _, part := range problem.Parts(err) {
		s.print("", fmt.Sprintf("error: %v", part))
		if p := (*problem.Panic)(nil); errors.As(part, &p) {
			fmt.Fprintf(debugLog{}, "%s", p.Stack)
		}
		for _, hint := range problem.Hints(part) {
			s.hint(hint)
		}
	}
}

func (s *screen) hint(text string) {
	if s.isNewHint(text) {
		s.print("", "hint: "+text)
	}
}

// Marks open a line in the way of step.
func (s *screen) good() string { return s.mark("✔", "32") }
func (s *screen) warn() string { return s.mark("⚠", "33") }

// mark returns a sign in a colour, which is a parameter of the escape sequence
// SGR (ECMA-48).
func (s *screen) mark(sign, colour string) string {
	if !s.coloured {
		return sign
	}
	return "\x1b[" + colour + "m" + sign + "\x1b[0m"
}

// A debugLog is a log for libraries, which do not know the rules of this
// package.
type debugLog struct{}

func (debugLog) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		// net/http quotes what it did not expect, which may be what we have sent.
		if begin, _, unexpected := strings.Cut(line, "Unsolicited response"); unexpected {
			line = begin + "unsolicited response"
		}
		Debug("%s", strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}

// Printable escapes characters that could do anything but appear where they
// stand (problem.IsPlain), and bytes that are not UTF-8.
func Printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case problem.IsPlain(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// Number writes a number for a person: 1234567 is 1,234,567.
func Number(n int) string { return humanize.Comma(int64(n)) }

// Count writes a number with what it counts.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + many
}
