package main

// What the program says to a person, and how.
//
// Everything here goes to standard error, in step's own look. Standard output
// is left to what was asked for: help and version.
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

func wantsColor(f *os.File) bool {
	_, off := os.LookupEnv("NO_COLOR")
	return !off && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

func (m mark) String() string {
	if !colored {
		return m.sign
	}
	return "\x1b[" + m.color + "m" + m.sign + "\x1b[0m"
}

// say prints one line.
func say(format string, args ...any) {
	fmt.Fprintln(os.Stderr, printable(fmt.Sprintf(format, args...)))
}

// sayMarked prints one line behind a mark.
func sayMarked(m mark, format string, args ...any) {
	fmt.Fprintln(os.Stderr, m.String(), printable(fmt.Sprintf(format, args...)))
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

// clip shortens s to at most n runes.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// status is what became of one certificate. DESIGN.md lists the words.
type status string

const (
	statusRevoked        status = "revoked"
	statusAlreadyRevoked status = "already-revoked"
	statusFailed         status = "failed"
	statusUnknown        status = "unknown"
	statusNotAttempted   status = "not-attempted"
)

// An outcome is what is known about one certificate at the end.
type outcome struct {
	target *target
	status status
	err    error // why, unless it is revoked now or was before
}

// done tells whether the certificate is known to be revoked.
func (o *outcome) done() bool {
	return o.status == statusRevoked || o.status == statusAlreadyRevoked
}

// sayOutcome prints what became of one certificate.
func sayOutcome(o *outcome) {
	serial := o.target.serial
	switch o.status {
	case statusRevoked:
		say("Certificate with Serial Number %s has been revoked.", serial)
	case statusAlreadyRevoked:
		say("Certificate with Serial Number %s was already revoked.", serial)
		say("hint: the reason on record is the one that was given then")
	case statusNotAttempted:
		say("Certificate with Serial Number %s was not attempted.", serial)
	case statusUnknown:
		sayProblem(fmt.Errorf("it is not known whether the certificate with serial number %s is revoked: %w", serial, o.err))
		say("hint: run the same command again: it says 'already revoked' if this attempt went through")
	default:
		sayProblem(fmt.Errorf("the certificate with serial number %s was not revoked: %w", serial, o.err))
	}
}
