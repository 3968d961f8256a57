package problem

import (
	"fmt"
	"runtime/debug"
)

// A Panic is the error that stands for a panic: a mistake in this program.
type Panic struct {
	value any
	Stack []byte // of the goroutine, for those who mend it
}

func (p *Panic) Error() string { return fmt.Sprintf("internal error: %v", p.value) }

// Recover turns a panic into an error, so that what has happened until then is
// still recorded. It must be deferred itself.
func Recover(err *error) {
	if value := recover(); value != nil {
		*err = WithCode(Failed, "%w", &Panic{value: value, Stack: debug.Stack()}).
			Hint("this is a mistake in step-revoke-plugin: please report it, with what STEPDEBUG=1 shows")
	}
}
