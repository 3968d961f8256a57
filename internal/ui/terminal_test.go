//go:build unix

package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// askingTest is the environment variable that makes the test binary ask a question
// instead: each test needs a terminal, and a process, of its own.
const askingTest = "UI_TEST_QUESTION"

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var answer any
	var err error
	switch os.Getenv(askingTest) {
	case "":
		os.Exit(m.Run())
	case "text":
		answer, err = Ask(ctx, "--flag", "Which text?", "A help.", func(s string) error {
			if s != "right" {
				return fmt.Errorf("%s is another text", s)
			}
			return nil
		})
	case "serial":
		answer, err = Ask(ctx, "--flag", "Serial number", "`step certificate inspect FILE` shows the serial number of a certificate", func(s string) error {
			if s = strings.TrimSpace(s); len(s) != 39 {
				return problem.New("no serial number").Hint("another one")
			}
			return nil
		})
	case "password":
		answer = "none"
		err = AskPassword(ctx, "--flag", "Which password?", func(password []byte) bool {
			answer = fmt.Sprintf("of %d bytes", len(password))
			return string(password) == "right" || len(password) == 0
		})
	case "choice":
		answer, err = AskChoice(ctx, "--flag", "Fruit", "Which fruit?", []string{"fig", "pear"})
	case "long choice":
		answer, err = AskChoice(ctx, "--flag", "Provisioner", "Which provisioner do you want to use?", []string{
			"admin (JWK) [kid: jEYSxOYSDNlwgqn9smoVS9TvkDQHgfhNbsEroJRcrm8]", "证书 (JWK) [kid: jEYSxOYSDNlwgqn9smoVS9TvkDQHgfhNbsEroJRcrm8]", "ci (X5C)"})
	case "long password":
		err = AskPassword(ctx, "--flag", "Please enter the password to decrypt the key of the provisioner \"admin\"", func([]byte) bool { return true })
	case "long yes":
		answer, err = Confirm(ctx, "--flag", "Revoke 1,234,567 certificates?")
	case "yes":
		answer, err = Confirm(ctx, "--flag", "Sure?")
	case "check":
		err = CheckTerminal("--flag")
	}
	Say("answer %v, error %v, code %d.", answer, err, problem.Code(err))
}

// A dialogue is text to wait for and, in between, keys to type.
type dialogue []string

var questions = []struct {
	name, question string
	dialogue       dialogue
	noLineEditing  dialogue // where NO_COLOR is set, unless it is the same
}{
	{name: "text", question: "text", dialogue: dialogue{"A help.", "", "Which text?", "rig\r", "rig is another", "", "Which text?", "right\r", "answer right, error <nil>"}},
	{name: "password", question: "password", dialogue: dialogue{"Which password?", "right\r", "answer of 5 bytes, error <nil>"}},
	{name: "empty", question: "password", dialogue: dialogue{"Which password?", "\r", "answer of 0 bytes, error <nil>"}},
	{name: "third try", question: "password", dialogue: dialogue{"Which password?", "guess\r", "the password is wrong", "", "Which password?", "guess\r",
		"the password is wrong", "", "Which password?", "right\r", "answer of 5 bytes, error <nil>"}},
	{name: "all wrong", question: "password", dialogue: dialogue{"Which password?", "guess\r", "the password is wrong", "", "Which password?", "guess\r",
		"the password is wrong", "", "Which password?", "guess\r", "the password is wrong", "", "answer of 5 bytes, error the password is wrong, code 1."}},
	{name: "password, Ctrl-C", question: "password", dialogue: dialogue{"Which password?", "\x03", "answer none, error interrupted, code 130."}},
	{name: "password, Ctrl-D", question: "password", dialogue: dialogue{"Which password?", "\x04", "answer none, error --flag is missing: no answer was given, code 2."}},
	{name: "password, SIGTERM", question: "password", dialogue: dialogue{"Which password?", sigterm, "answer none, error interrupted, code 130."}},
	{name: "choice", question: "choice", dialogue: dialogue{"pear", "\x1b[B\r", "Fruit:", "", "answer 1, error <nil>"},
		noLineEditing: dialogue{"2  pear", "", "Which fruit? [1-2]", "3\r", `"3" is not one of the numbers`, "2\r", "✔ Fruit: pear", "", "answer 1, error <nil>"}},
	{name: "yes", question: "yes", dialogue: dialogue{"Sure? [y/n]", "y\r", "answer true, error <nil>"}},
	{name: "no", question: "yes", dialogue: dialogue{"Sure? [y/n]", "n\r", "answer false, error <nil>"}},
	{name: "check", question: "check", dialogue: dialogue{"error <nil>"}},
}

const sigterm = "SIGTERM"

// TestAsk asks at a terminal.
func TestAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range questions {
		for _, way := range []string{"TERM=xterm", "NO_COLOR=1"} {
			t.Run(tt.name+" "+way, func(t *testing.T) {
				t.Parallel()
				steps := tt.dialogue
				if way == "NO_COLOR=1" && tt.noLineEditing != nil {
					steps = tt.noLineEditing
				}
				shown := converse(t, tt.question, way, steps)
				if strings.Contains(shown, "guess") || way == "NO_COLOR=1" && strings.Contains(shown, "\x1b") {
					t.Errorf("shown: %q", shown)
				}
			})
		}
	}
}

// converse returns what the terminal has shown.
func converse(t *testing.T, question, way string, steps dialogue) (shown string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), askingTest+"="+question, "TERM=xterm", way, "GORACE="+raceOptions(t))
	keyboard, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	seen := 0 // how much of what is shown the dialogue has passed
	for i, step := range steps {
		switch {
		case step == sigterm:
			err = cmd.Process.Signal(syscall.SIGTERM)
		case i%2 == 1:
			_, err = io.WriteString(keyboard, step)
		default:
			for !strings.Contains(shown[seen:], step) && err == nil {
				var n int
				buffer := make([]byte, 4096)
				n, err = keyboard.Read(buffer)
				shown += string(buffer[:n])
			}
			if at := strings.Index(shown[seen:], step); at >= 0 {
				seen, err = seen+at+len(step), nil
			}
		}
		if err != nil {
			t.Fatalf("%q: %v in %q", step, err, shown)
		}
	}
	_, _ = io.Copy(io.Discard, keyboard)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return shown
}

// raceOptions keeps the race detector from reporting what goes on in libraries.
func raceOptions(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // that of t has characters in its name at which an option ends
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "suppressions")
	if err := os.WriteFile(file, []byte("race:github.com/manifoldco/promptui\nrace:github.com/chzyer/readline\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "atexit_sleep_ms=0 suppressions=" + file
}

// TestNoTerminal asks where there is no terminal.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	for _, question := range []string{"text", "password", "choice", "yes", "check"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), askingTest+"="+question)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdin = strings.NewReader("y\n")
		shown, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(shown), "error --flag is missing, and there is no terminal to ask for it, code 2.\n") {
			t.Errorf("%s: %v\n%s", question, err, shown)
		}
	}
}

// TestBottomLine shows a bar and lines above it.
func TestBottomLine(t *testing.T) {
	t.Parallel()
	control, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	if err := pty.Setsize(control, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	s := newScreen(tty, false)
	p := newProgress(s, 3)
	p.Add(true)
	p.Show()
	s.print(s.good(), "above")
	if err := pty.Setsize(control, &pty.Winsize{Rows: 24, Cols: 50}); err != nil {
		t.Fatal(err)
	}
	s.print("", "narrow")
	s.farewell(problem.ErrInterrupted)
	p.End()
	tty.Close()
	got, _ := io.ReadAll(control)
	parts := strings.Split(string(got), clearDown)
	bar := parts[0]
	want := []string{bar, "\x1b[32m✔\x1b[0m above\r\n" + bar, "narrow\r\n", "error: interrupted\r\n", ""}
	if !strings.HasPrefix(bar, "1 of 3 [") || !strings.HasSuffix(bar, " 1 failed\r") || strings.Join(parts, "|") != strings.Join(want, "|") || p.Interval() != barInterval {
		t.Errorf("%q, want %q", parts, want)
	}
}

// TestBlockedTerminal leaves a prompt at a terminal that takes no more text.
func TestBlockedTerminal(t *testing.T) {
	t.Parallel()
	control, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close() // which ends what still writes
	if err := tty.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for full := make([]byte, 4096); err == nil; {
		_, err = tty.Write(full)
	}
	if err := tty.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	left := make(chan error)
	go func() {
		_, err := await(ctx, terminal{tty: tty}, func(terminal) (any, error) { <-t.Context().Done(); return nil, nil })
		left <- err
	}()
	select {
	case err := <-left:
		if !errors.Is(err, problem.ErrInterrupted) {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the prompt is not left")
	}
}
