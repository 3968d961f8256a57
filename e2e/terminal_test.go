//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminalMain is the program at-terminal. Its exit code is that of the program
// that it runs, or 125 if the dialogue differs.
func terminalMain() {
	args := os.Args[1:]
	piped := len(args) > 0 && args[0] == "-piped"
	if piped {
		args = args[1:]
	}
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: at-terminal [-piped] DIALOGUE PROGRAM [args...]")
		os.Exit(125)
	}
	dialogue, err := os.ReadFile(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	code, err := runAtTerminal(string(dialogue), piped, exec.Command(args[1], args[2:]...))
	if err != nil {
		fmt.Fprintln(os.Stderr, "at-terminal:", err)
		code = 125
	}
	os.Exit(code)
}

func runAtTerminal(dialogue string, piped bool, cmd *exec.Cmd) (int, error) {
	p := newProcess(cmd)
	tty, err := p.openTerminal(io.Discard)
	if err != nil {
		return 0, err
	}
	cmd.Env = append(os.Environ(), "TERM=xterm")
	if piped {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.ExtraFiles, cmd.SysProcAttr.Ctty = []*os.File{tty}, 3
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	}
	err = p.start(tooLong / 2)
	tty.Close()
	if err != nil {
		return 0, err
	}
	err = p.wait(dialogue)
	if !piped || err != nil {
		fmt.Print(p.screen.text.String())
	}
	return cmd.ProcessState.ExitCode(), err
}

// A process is a program in a session of its own, which has the program's
// process ID and holds the processes that the program starts.
type process struct {
	cmd     *exec.Cmd
	timer   *time.Timer
	control *os.File // the person's side of its terminal, or nil
	screen  *screen
}

func newProcess(cmd *exec.Cmd) *process {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return &process{cmd: cmd}
}

// openTerminal gives the program a pseudo-terminal and returns the program's
// side of it. All that is shown there is written to raw as well.
func (p *process) openTerminal(raw io.Writer) (tty *os.File, err error) {
	control, tty, err := pty.Open()
	if err != nil {
		return nil, err
	}
	p.control, p.screen = control, &screen{in: io.TeeReader(control, raw)}
	p.cmd.SysProcAttr.Setctty = true
	// Wide enough that nothing is wrapped; without a size nothing is drawn.
	return tty, pty.Setsize(control, &pty.Winsize{Rows: 50, Cols: 400})
}

// start starts the program, which is killed if it takes longer than the limit.
func (p *process) start(limit time.Duration) error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.timer = time.AfterFunc(limit, p.kill)
	return nil
}

// kill ends the whole group: step leaves a plugin behind.
func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// wait has the dialogue, if there is a terminal, and waits for the end of the
// program. An exit code is no error.
func (p *process) wait(dialogue string) (err error) {
	if p.control != nil {
		defer p.control.Close()
		if err = converse(dialogue, p.screen, p.control, p.cmd.Process); err != nil {
			p.kill()
		}
		for p.screen.read() == nil {
		}
	}
	ended := p.cmd.Wait()
	if !p.timer.Stop() && err == nil {
		err = errors.New("the program has not ended by itself")
	}
	if exit := (*exec.ExitError)(nil); !errors.As(ended, &exit) {
		err = errors.Join(err, ended)
	}
	return err
}

// converse has the dialogue: it waits for questions and types answers.
func converse(dialogue string, screen *screen, keyboard io.Writer, process *os.Process) error {
	for line := range strings.Lines(dialogue) {
		sign, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var keys string
		switch sign {
		case "?":
			if err := screen.await(rest); err != nil {
				return err
			}
			continue
		case ">":
			keys = os.ExpandEnv(rest) + "\r"
		case "<":
			b, err := os.ReadFile(os.ExpandEnv(rest))
			if err != nil {
				return err
			}
			keys = strings.TrimSpace(string(b)) + "\r"
		case "=":
			var err error
			if keys, err = strconv.Unquote(rest); err != nil {
				return err
			}
		case "!":
			if err := process.Signal(unix.SignalNum("SIG" + rest)); err != nil {
				return err
			}
			continue
		case "!!":
			if err := syscall.Kill(-process.Pid, unix.SignalNum("SIG"+rest)); err != nil {
				return err
			}
			continue
		case "", "#":
		default:
			return fmt.Errorf("cannot read the dialogue's line %q", line)
		}
		if _, err := io.WriteString(keyboard, keys); err != nil {
			return err
		}
	}
	return nil
}

// A screen collects the text of a pseudo-terminal, without control characters.
type screen struct {
	in     io.Reader
	escape []byte // an escape sequence that is not complete yet
	text   bytes.Buffer
	seen   int // how much of text await has passed
}

var escapeSequence = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[^\[])`)

// read waits for more on the screen. It returns an error when the programs
// that had it open are gone.
func (s *screen) read() error {
	buffer := make([]byte, 4096)
	n, err := s.in.Read(buffer)
	raw := escapeSequence.ReplaceAll(append(s.escape, buffer[:n]...), nil)
	s.escape = nil
	if i := bytes.IndexByte(raw, '\x1b'); i >= 0 {
		raw, s.escape = raw[:i], bytes.Clone(raw[i:])
	}
	for _, c := range raw {
		switch n := s.text.Len(); {
		case c == '\b' && n > s.seen && s.text.Bytes()[n-1] == ' ':
			s.text.Truncate(n - 1) // how readline wipes
		case c >= ' ' || c == '\n':
			s.text.WriteByte(c)
		}
	}
	return err
}

// await waits until something new on the screen matches, and passes it.
func (s *screen) await(expression string) error {
	re, err := regexp.Compile(expression)
	if err != nil {
		return err
	}
	for {
		if at := re.FindIndex(s.text.Bytes()[s.seen:]); at != nil {
			s.seen += at[1]
			return nil
		}
		if err := s.read(); err != nil {
			return fmt.Errorf("the program has ended, or hangs, without showing %q", expression)
		}
	}
}
