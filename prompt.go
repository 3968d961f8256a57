package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/chzyer/readline"
	"github.com/manifoldco/promptui"
	"github.com/smallstep/cli-utils/ui"
	"golang.org/x/term"
)

// The ways to ask a person. Each names the flag that makes the question
// unnecessary: where nobody can be asked, that is the error.

// ask asks for a line of text until validate accepts it.
func ask(ctx context.Context, flag, question string, validate func(string) error) (string, error) {
	return atTerminal(ctx, flag, func(t terminal) (string, error) {
		if plain {
			return askPlainly(t, question, validate)
		}
		return ui.Prompt(printable(question), ui.WithPromptTemplates(promptTemplates()), ui.WithValidateFunc(validate))
	})
}

// askPassword asks for a password, which is not shown.
func askPassword(ctx context.Context, flag, question string) ([]byte, error) {
	return atTerminal(ctx, flag, func(t terminal) ([]byte, error) {
		if plain {
			return typeHidden(t, question)
		}
		return ui.PromptPassword(printable(question))
	})
}

// askChoice asks for one of several items and returns its index.
func askChoice(ctx context.Context, flag, name, question string, items []string) (int, error) {
	type item struct{ Name string }
	shown := make([]item, len(items))
	for i, s := range items {
		shown[i].Name = printable(s)
	}
	i, err := atTerminal(ctx, flag, func(t terminal) (int, error) {
		if plain {
			return choosePlainly(t, question, items)
		}
		i, _, err := ui.Select(printable(question), shown, ui.WithSelectTemplates(selectTemplates(name)))
		return i, err
	})
	if err == nil && plain {
		saySelected(name, items[i]) // as Select does itself
	}
	return i, err
}

// confirm asks for a yes or no.
func confirm(ctx context.Context, flag, question string) (bool, error) {
	question += " [y/n]"
	return atTerminal(ctx, flag, func(t terminal) (bool, error) {
		if plain {
			answer, err := askPlainly(t, question, ui.YesNo())
			return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y"), err
		}
		return ui.PromptYesNo(printable(question), ui.WithPromptTemplates(promptTemplates()))
	})
}

// settling is time for a prompt that has just begun to make its changes to the
// terminal, so that none comes after they are undone.
const settling = 100 * time.Millisecond

// showCursor undoes what a choice does, and leaves the line of the prompt.
const showCursor = "\x1b[?25h\r\n"

// A terminal is where questions are read and answered.
type terminal struct{ in, out *os.File }

// atTerminal runs a prompt on the terminal, which may be another one than the
// standard streams. A signal ends it and leaves the terminal as it was.
func atTerminal[T any](ctx context.Context, flag string, prompt func(t terminal) (T, error)) (T, error) {
	var none T
	tty, restore, err := openTerminal()
	if err != nil {
		return none, noTerminal(flag)
	}
	defer restore()
	// ui reads from the terminal where standard input is none, but its Select
	// does so only if readline is told.
	t := terminal{os.Stdin, os.Stderr}
	if !readline.DefaultIsTerminal() {
		t.in = tty
		defer func(stdin io.ReadCloser) { readline.Stdin = stdin }(readline.Stdin)
		readline.Stdin = tty
	}
	// It writes to os.Stderr, whatever that is at the time.
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		defer func(stderr *os.File) { os.Stderr = stderr }(os.Stderr)
		os.Stderr, t.out = tty, tty
	}
	type result struct {
		answer T
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := prompt(t)
		done <- result{answer, err}
	}()
	select {
	case <-ctx.Done():
		time.Sleep(settling)
		if plain {
			fmt.Fprintln(tty)
		} else {
			fmt.Fprint(tty, showCursor)
		}
		return none, errInterrupted
	case r := <-done:
		switch {
		case errors.Is(r.err, promptui.ErrInterrupt):
			return none, errInterrupted
		case errors.Is(r.err, promptui.ErrEOF), errors.Is(r.err, io.EOF):
			return none, usagef("%s is missing: %w", flag, errNothingTyped)
		case r.err != nil:
			return none, usagef("%s is missing: %w", flag, r.err)
		}
		return r.answer, nil
	}
}

// askPlainly asks without line editing, which takes escape sequences.
func askPlainly(t terminal, question string, validate func(string) error) (string, error) {
	for lines := bufio.NewReader(t.in); ; {
		fmt.Fprint(t.out, printable(question)+": ")
		line, err := lines.ReadString('\n')
		if err != nil {
			fmt.Fprintln(t.out)
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if err = validate(line); err == nil {
			return line, nil
		}
		fmt.Fprintln(t.out, warn, printable(err.Error()))
	}
}

// choosePlainly asks for the number of an item and returns its index.
func choosePlainly(t terminal, question string, items []string) (i int, err error) {
	for i, item := range items {
		fmt.Fprintf(t.out, "%3d  %s\n", i+1, printable(item))
	}
	_, err = askPlainly(t, fmt.Sprintf("%s [1-%d]", question, len(items)), func(s string) error {
		if i, err = strconv.Atoi(strings.TrimSpace(s)); err != nil || i < 1 || i > len(items) {
			return fmt.Errorf("%q is not one of the numbers", s)
		}
		return nil
	})
	return i - 1, err
}

// checkTerminal finds out beforehand whether a question could be asked.
func checkTerminal(flag string) error {
	_, restore, err := openTerminal()
	if err != nil {
		return noTerminal(flag)
	}
	restore()
	return nil
}

func noTerminal(flag string) *problem {
	return usagef("%s is missing, and %w", flag, errNoTerminal)
}

var errNothingTyped = errors.New("no answer was given")

// typeHidden asks for a line that is not shown, not even if it is typed as soon
// as the question appears. term.ReadPassword would wait on after Ctrl-D.
func typeHidden(t terminal, question string) ([]byte, error) {
	state, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = term.Restore(int(t.in.Fd()), state)
		fmt.Fprintln(t.out)
	}()
	fmt.Fprint(t.out, printable(question)+": ")
	var line []byte
	for key := make([]byte, 1); ; {
		switch n, err := t.in.Read(key); {
		case err != nil:
			return nil, err
		case n == 0, key[0] == 4 && len(line) == 0: // Ctrl-D
			return nil, io.EOF
		case key[0] == 3: // Ctrl-C
			return nil, promptui.ErrInterrupt
		case key[0] == '\r', key[0] == '\n':
			return bytes.TrimRightFunc(line, unicode.IsSpace), nil
		case key[0] == 8, key[0] == 127: // backspace
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		case key[0] == 21: // Ctrl-U
			line = nil
		default:
			line = append(line, key[0])
		}
	}
}

var errNoTerminal = errors.New("there is no terminal to ask for it")

// promptTemplates are ui's, or the same without colour.
func promptTemplates() *promptui.PromptTemplates {
	if colored {
		return ui.PromptTemplates()
	}
	return &promptui.PromptTemplates{
		Prompt: "? {{ . }}: ", Valid: "✔ {{ . }}: ", Invalid: "✗ {{ . }}: ", Success: "✔ {{ . }}: ",
	}
}

// selectTemplates are ui's, or the same without colour.
func selectTemplates(name string) *promptui.SelectTemplates {
	if colored {
		return ui.NamedSelectTemplates(name)
	}
	return &promptui.SelectTemplates{
		Label: "? {{ . }}: ", Active: "▸ {{ .Name }}", Inactive: "  {{ .Name }}", Selected: "✔ " + name + ": {{ .Name }}",
	}
}
