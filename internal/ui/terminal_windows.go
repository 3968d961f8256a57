package ui

import (
	"os"

	"golang.org/x/term"
)

// openTerminal opens the console. The function that it returns closes it and puts
// it back into the state it was found in.
func openTerminal() (tty *os.File, restore func(), err error) {
	in := int(os.Stdin.Fd()) // where readline looks for input on Windows
	state, err := term.GetState(in)
	if err != nil {
		return nil, nil, err
	}
	tty, err = os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	return tty, func() {
		_ = term.Restore(in, state)
		tty.Close()
	}, nil
}
