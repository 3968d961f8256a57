//go:build unix

package ui

import (
	"os"

	"golang.org/x/term"
)

// openTerminal opens the controlling terminal. The function that it returns closes
// it and puts it back into the state it was found in.
func openTerminal() (tty *os.File, restore func(), err error) {
	tty, err = os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	state, err := term.GetState(int(tty.Fd()))
	if err != nil {
		tty.Close()
		return nil, nil, err
	}
	return tty, func() {
		_ = term.Restore(int(tty.Fd()), state)
		tty.Close()
	}, nil
}
