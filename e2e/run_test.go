//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// runSession runs a script as a part of t. The script has commands of its own
// besides those of the harness, and they may start subtests of t.
func runSession(t *testing.T, script string, commands map[string]func(ts *testscript.TestScript, args []string)) {
	file := filepath.Join(t.TempDir(), "session.txtar")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	params := scriptParams("")
	params.Files = []string{file}
	for name, command := range commands {
		params.Cmds[name] = func(ts *testscript.TestScript, _ bool, args []string) {
			command(ts, args)
			if t.Failed() {
				ts.Fatalf("a subtest of %s has failed", name)
			}
		}
	}
	testscript.RunT(wholeTest{t}, params)
}

// wholeTest runs a script in the test itself, and not in a parallel subtest,
// which would begin only after the test has returned.
type wholeTest struct{ *testing.T }

func (t wholeTest) Run(_ string, f func(testscript.T)) { f(t) }
func (wholeTest) Parallel()                            {}
func (wholeTest) Verbose() bool                        { return testing.Verbose() }

// scriptVariable returns a function that looks up a variable of a script. The
// test fails if the variable is not set.
func scriptVariable(t *testing.T, ts *testscript.TestScript) func(name string) string {
	return func(name string) string {
		value := ts.Getenv(name)
		if value == "" {
			t.Fatalf("$%s is not set", name)
		}
		return value
	}
}

// words replaces the variables of a command line and splits it at blanks. A word
// of two apostrophes stands for an empty one.
func words(line string, variable func(name string) string) []string {
	all := strings.Fields(os.Expand(line, variable))
	for i, word := range all {
		if word == "''" {
			all[i] = ""
		}
	}
	return all
}

// An invocation is one run of the plugin, in a script's directory and
// environment.
type invocation struct {
	args     []string
	asStep   bool     // run it as "step revoke"
	env      []string // more than the script's
	stdin    string
	terminal bool   // standard input and standard error are a terminal
	dialogue string // what happens at the terminal, in the language of at-terminal
}

// A process is an invocation that was started.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	timer          *time.Timer
	stdout, stderr bytes.Buffer

	terminal *os.File // the side of the person, or nil
	screen   *screen
	dialogue string
}

// A result is what an invocation came to.
type result struct {
	code           int
	stdout, stderr string
	screen         string // the terminal without control characters
}

// run runs the plugin to its end.
func (c invocation) run(t *testing.T, ts *testscript.TestScript) result {
	t.Helper()
	return c.start(t, ts).wait()
}

// start starts the plugin in a session of its own, which has the plugin's
// process ID and holds the processes that the plugin starts.
func (c invocation) start(t *testing.T, ts *testscript.TestScript) *process {
	t.Helper()
	cmd := exec.Command(ts.Getenv("plugin"), c.args...)
	if c.asStep {
		cmd = exec.Command(filepath.Join(ts.Getenv("tools"), "step"), append([]string{"revoke"}, c.args...)...)
	}
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"HOME", "STEPPATH", "PATH", "TMPDIR", "GORACE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(append(cmd.Env, "TERM=xterm"), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := &process{t: t, cmd: cmd, dialogue: c.dialogue}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	if c.stdin != "" {
		cmd.Stdin = strings.NewReader(c.stdin)
	}
	if c.terminal {
		defer p.openTerminal().Close()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.timer = time.AfterFunc(tooLong, p.kill)
	return p
}

// openTerminal makes a pseudo-terminal and returns the side of the program.
func (p *process) openTerminal() *os.File {
	control, tty, err := pty.Open()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { control.Close() })
	// Wide enough that nothing is wrapped; without a size nothing is drawn.
	if err := pty.Setsize(control, &pty.Winsize{Rows: 50, Cols: 400}); err != nil {
		p.t.Fatal(err)
	}
	p.terminal, p.screen = control, &screen{in: io.TeeReader(control, &p.stderr)}
	p.cmd.Stdin, p.cmd.Stderr = tty, tty
	p.cmd.SysProcAttr.Setctty = true
	return tty
}

// kill ends the whole group: step leaves a plugin behind.
func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// wait has the dialogue and waits for the end of the program.
func (p *process) wait() (r result) {
	p.t.Helper()
	if p.terminal != nil {
		if err := converse(p.dialogue, p.screen, p.terminal, p.cmd.Process); err != nil {
			p.t.Errorf("%v; the terminal shows\n%q", err, &p.screen.text)
			p.kill()
		}
		for p.screen.read() == nil {
		}
		r.screen = p.screen.text.String()
	}
	err := p.cmd.Wait()
	if !p.timer.Stop() {
		p.t.Error("the program has not ended by itself")
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	r.code, r.stdout, r.stderr = p.cmd.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()
	return r
}
