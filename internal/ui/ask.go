package ui

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/chzyer/readline"
	"github.com/manifoldco/promptui"
	"github.com/smallstep/cli-utils/ui"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// The functions that ask take the flag that makes the question unnecessary.
// Without an answer their error names it, and has the exit code of a usage
// error. After a signal or Ctrl-C the error is problem.ErrInterrupted.

// A question is what stands before an answer.
type question struct {
	help  string // a line before it, or empty
	text  string
	short string // in place of text where that leaves no room for the answer
}

// Ask asks for a line of text, behind a short label, until check accepts it. The
// line before helps.
func Ask(ctx context.Context, flag, label, help string, check func(string) error) (string, error) {
	return atTerminal(ctx, flag, func(t terminal) (string, error) {
		return t.answer(question{help: help, text: label, short: label}, check)
	})
}

// answer asks for a line of text until check accepts it.
func (t terminal) answer(q question, check func(string) error) (string, error) {
	if stderr.plain {
		return t.ask(q, check)
	}
	return t.edit(q, check)
}

// maxTries is how often a password is asked for.
const maxTries = 3

// ErrWrongPassword is the error of AskPassword after the last wrong password.
// The caller knows what the password was for, and says so instead.
var ErrWrongPassword = errors.New("the password is wrong")

// AskPassword asks for a password, which is not shown, until it fits: three
// times at most. It says itself that one is wrong. White space at the end is
// not part of a password, which may be empty.
func AskPassword(ctx context.Context, flag, text string, fits func(password []byte) bool) error {
	for range maxTries {
		password, err := atTerminal(ctx, flag, func(t terminal) ([]byte, error) {
			return t.askHidden(question{text: text, short: "Password"})
		})
		if err != nil {
			return err
		}
		problem.Hide(string(password))
		if fits(password) {
			return nil
		}
		Warn("%v", ErrWrongPassword)
	}
	return ErrWrongPassword
}

// AskChoice asks for one of several items and returns its index. It prints the
// chosen item behind name.
func AskChoice(ctx context.Context, flag, name, text string, items []string) (int, error) {
	i, err := atTerminal(ctx, flag, func(t terminal) (int, error) {
		if stderr.plain {
			return t.choose(text, items)
		}
		return t.pick(question{text: text, short: name}, items)
	})
	if err == nil {
		Selected(name, items[i])
	}
	return i, err
}

// pick has one of several items chosen with the arrow keys. The library redraws
// rightly only what is not wrapped.
func (t terminal) pick(q question, items []string) (int, error) {
	room := t.columns() - 5 // for "↑ ▸ ", and the last column
	showable := make([]string, len(items))
	for i, item := range items {
		showable[i] = shorten(Printable(item), room)
	}
	label := strings.TrimSuffix(t.lead(q, asking()+" ", 0), ": ")
	list := promptui.Select{
		Label: label, Items: showable, Templates: selectTemplates(), HideHelp: true, HideSelected: true,
	}
	i, _, err := list.Run()
	return i, err
}

// Confirm asks for a yes or no.
func Confirm(ctx context.Context, flag, text string) (bool, error) {
	return atTerminal(ctx, flag, func(t terminal) (bool, error) {
		answer, err := t.answer(question{text: text + " [y/n]", short: "[y/n]"}, ui.YesNo())
		return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y"), err
	})
}

// CheckTerminal finds out beforehand whether a question could be asked.
func CheckTerminal(flag string) error {
	_, restore, err := openTerminal()
	if err != nil {
		return noTerminal(flag)
	}
	restore()
	return nil
}

func noTerminal(flag string) error {
	return problem.WithCode(problem.Usage, "%s is missing, and there is no terminal to ask for it", flag)
}

// A terminal is where questions are asked and answered.
type terminal struct {
	in, out *os.File // where standard input or standard error is no terminal, tty
	tty     *os.File
}

// atTerminal runs a prompt on the terminal, which may be another one than the
// standard streams. It leaves the terminal in the mode in which it was, also
// after a signal.
func atTerminal[T any](ctx context.Context, flag string, prompt func(terminal) (T, error)) (answer T, err error) {
	t, restore, err := openStreams()
	if err != nil {
		return answer, noTerminal(flag)
	}
	defer restore()
	answer, err = await(ctx, t, prompt)
	switch {
	case errors.Is(err, promptui.ErrInterrupt), errors.Is(err, problem.ErrInterrupted):
		err = problem.ErrInterrupted
	case errors.Is(err, promptui.ErrEOF), errors.Is(err, io.EOF):
		err = problem.WithCode(problem.Usage, "%s is missing: no answer was given", flag)
	case err != nil:
		err = problem.WithCode(problem.Usage, "%s is missing: %w", flag, err)
	}
	return answer, err
}

// openStreams opens the terminal, and makes the libraries of prompts use it.
// They read from readline.Stdin and write to os.Stderr.
func openStreams() (t terminal, restore func(), err error) {
	tty, closeTerminal, err := openTerminal()
	if err != nil {
		return t, nil, err
	}
	t = terminal{in: os.Stdin, out: stderr.file, tty: tty}
	undo := []func(){closeTerminal}
	if !readline.DefaultIsTerminal() {
		before := readline.Stdin
		undo = append(undo, func() { readline.Stdin = before })
		readline.Stdin, t.in = tty, tty
	}
	if !stderr.isTerminal() {
		before := os.Stderr
		undo = append(undo, func() { os.Stderr = before })
		os.Stderr, t.out = tty, tty
	}
	return t, func() {
		for i := range undo {
			undo[len(undo)-1-i]()
		}
	}, nil
}

// settling lets a prompt that is just starting finish changing the terminal
// before that is restored.
const settling = 100 * time.Millisecond

// showCursor makes the cursor visible again, which a choice hides, and leaves
// the line of the prompt, which may have asked for pastes to be marked.
const showCursor = "\x1b[?25h" + pasteOff + "\r\n"

// await runs a prompt until it ends or the context does. It leaves a prompt
// that goes on behind: a read from a terminal cannot be interrupted.
func await[T any](ctx context.Context, t terminal, prompt func(terminal) (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := prompt(t)
		done <- result{answer: answer, err: err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
	}
	time.Sleep(settling)
	leave := showCursor
	if stderr.plain {
		leave = "\n"
	}
	patiently(func() { _, _ = t.tty.WriteString(leave) })
	return answer, problem.ErrInterrupted
}

// selectTemplates are the look of a choice.
func selectTemplates() *promptui.SelectTemplates {
	t := &promptui.SelectTemplates{Label: asking() + " {{ . }}", Active: "▸ {{ . }}", Inactive: "  {{ . }}"}
	if stderr.coloured {
		t.Active = "▸ {{ . | underline }}"
	}
	return t
}
