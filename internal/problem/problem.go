// Package problem is what goes wrong, as a person is told: an error with hints
// on what to do about it, and the exit code it leads to.
package problem

import (
	"errors"
	"fmt"
)

// Exit codes of the program. 3 is left out: step itself ends with it where the
// plugin is not installed.
const (
	OK          = 0
	Failed      = 1   // a target is not known to be revoked
	Usage       = 2   // found before the CA was contacted or its database opened
	Incomplete  = 4   // every target is revoked, but something beyond that is missing
	Interrupted = 130 // by a signal, or Ctrl-C at a prompt
)

// severity orders the exit codes for errors that are joined: what a code claims
// must be true of all of them.
var severity = map[int]int{Incomplete: 1, Usage: 2, Failed: 3, Interrupted: 4}

// A Problem is an error with hints for a person.
type Problem struct {
	error
	code  int // 0: whoever knows how far the run has come decides (Default)
	Hints []string
}

// Unwrap returns the error that the problem is about.
func (p *Problem) Unwrap() error { return p.error }

// New returns a problem without an exit code: Default gives it one.
func New(format string, args ...any) *Problem { return &Problem{error: fmt.Errorf(format, args...)} }

// WithCode returns a problem that leads to this exit code wherever it is met.
func WithCode(code int, format string, args ...any) *Problem {
	return &Problem{error: fmt.Errorf(format, args...), code: code}
}

// Hint returns a copy of the problem with one more hint.
func (p *Problem) Hint(format string, args ...any) *Problem {
	c := *p
	c.Hints = append(c.Hints[:len(c.Hints):len(c.Hints)], fmt.Sprintf(format, args...))
	return &c
}

// Wrap says what an error means here. It keeps the exit code and the hints.
func Wrap(err error, format string, args ...any) *Problem {
	p := New(format+": %w", append(args, err)...)
	p.code, p.Hints = decided(err, 0), Hints(err)
	return p
}

// Hints returns the hints of the outermost problem in err.
func Hints(err error) []string {
	if p := (*Problem)(nil); errors.As(err, &p) {
		if len(p.Hints) == 0 {
			return Hints(p.error)
		}
		return p.Hints
	}
	return nil
}

// Parts returns the errors that errors.Join has put together in err, or err
// alone.
func Parts(err error) (parts []error) {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if joined, ok := inner.(interface{ Unwrap() []error }); ok && errors.Join(joined.Unwrap()...).Error() == err.Error() {
			for _, part := range joined.Unwrap() {
				parts = append(parts, Parts(part)...)
			}
			return parts
		}
	}
	return []error{err}
}

// ErrInterrupted ends a run that a signal, or Ctrl-C at a prompt, has stopped.
var ErrInterrupted error = WithCode(Interrupted, "interrupted")

// Default gives this exit code to what has none yet in err.
func Default(err error, code int) error {
	if err == nil || decided(err, 0) != 0 {
		return err
	}
	return &Problem{error: err, code: decided(err, code)}
}

// Code returns the exit code that err stands for.
func Code(err error) int {
	if err == nil {
		return OK
	}
	return decided(err, Failed)
}

// decided returns the exit code of err, in which what has none gets missing. If
// that is 0, it is 0 as soon as anything has none.
func decided(err error, missing int) int {
	if p, ok := err.(*Problem); ok && p.code != 0 {
		return p.code
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		if inner := wrapper.Unwrap(); inner != nil {
			return decided(inner, missing)
		}
	case interface{ Unwrap() []error }:
		worst := 0
		for _, inner := range wrapper.Unwrap() {
			code := decided(inner, missing)
			if code == 0 {
				return 0
			}
			if severity[code] > severity[worst] {
				worst = code
			}
		}
		return worst
	}
	return missing
}
