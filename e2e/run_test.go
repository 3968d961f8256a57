//go:build unix

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	peak     string // a file for its peak of memory, or empty
	terminal bool   // standard input and standard error are a terminal
	dialogue string // what happens at the terminal, in the language of at-terminal
}

// A running is an invocation that was started.
type running struct {
	*process
	t              *testing.T
	dialogue       string
	stdout, stderr bytes.Buffer
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
	return c.start(t, ts).result()
}

// pluginEnv is the environment of the plugin.
func pluginEnv(ts *testscript.TestScript) []string {
	env := []string{"TERM=xterm"}
	for _, name := range []string{"HOME", "STEPPATH", "PATH", "TMPDIR", "GORACE"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// start starts the plugin.
func (c invocation) start(t *testing.T, ts *testscript.TestScript) *running {
	t.Helper()
	cmd := exec.Command(ts.Getenv("plugin"), c.args...)
	if c.asStep {
		cmd = exec.Command(filepath.Join(ts.Getenv("tools"), "step"), append([]string{"revoke"}, c.args...)...)
	}
	if c.peak != "" {
		peak, err := exec.LookPath("peak")
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(peak, cmd.Args...)
		c.env = append(slices.Clip(c.env), peakFile+"="+c.peak)
	}
	cmd.Dir, cmd.Env = ts.Getenv("WORK"), append(pluginEnv(ts), c.env...)
	r := &running{process: newProcess(cmd), t: t, dialogue: c.dialogue}
	cmd.Stdout, cmd.Stderr = &r.stdout, &r.stderr
	if c.stdin != "" {
		cmd.Stdin = strings.NewReader(c.stdin)
	}
	if c.terminal {
		tty, err := r.openTerminal(&r.stderr)
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		cmd.Stdin, cmd.Stderr = tty, tty
	}
	if err := r.process.start(tooLong); err != nil {
		t.Fatal(err)
	}
	return r
}

// result has the dialogue and waits for the end of the program.
func (r *running) result() result {
	r.t.Helper()
	err := r.wait(r.dialogue)
	got := result{code: r.cmd.ProcessState.ExitCode(), stdout: r.stdout.String(), stderr: r.stderr.String()}
	if r.screen != nil {
		got.screen = r.screen.text.String()
	}
	if err != nil {
		r.t.Errorf("%v; the terminal shows\n%q", err, got.screen)
	}
	return got
}
