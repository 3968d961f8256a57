//go:build unix

package ui

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A pane is a terminal of tmux, which shows what a person would see.
type pane struct {
	t      *testing.T
	socket string
}

// newPane asks a question at a terminal with so many columns. What it shows stays
// when the program has ended.
func newPane(t *testing.T, question string, columns int) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("there is no tmux")
	}
	// The name of a socket may have about a hundred bytes, which that of t may exceed.
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	p := &pane{t: t, socket: filepath.Join(dir, "s")}
	t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", p.socket, "kill-server").Run()
		os.RemoveAll(dir)
	})
	p.tmux("-f", "/dev/null", "new-session", "-d", "-s", "asking", "-x", fmt.Sprint(columns), "-y", "30",
		"env -u NO_COLOR TERM=screen "+askingTest+"="+question+" GORACE='"+raceOptions(t)+"' "+os.Args[0]+"; exec cat")
	return p
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-S", p.socket}, args...)...)
	cmd.Env = append(os.Environ(), "TMUX=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// sees waits until the whole screen is this.
func (p *pane) sees(what string, rows ...string) {
	p.t.Helper()
	want := strings.Join(rows, "\n")
	for deadline := time.Now().Add(20 * time.Second); ; { // tmux tells nobody that a screen has changed
		got := strings.TrimRight(p.tmux("capture-pane", "-p", "-t", "asking"), "\n")
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s:\n%s\nwant\n%s", what, got, want)
		}
	}
}

// types sends keys as a keyboard does, and pastes as a terminal does.
func (p *pane) types(keys ...string) {
	p.tmux(append([]string{"send-keys", "-t", "asking"}, keys...)...)
}
func (p *pane) pastes(text string) {
	p.tmux("set-buffer", text)
	p.tmux("paste-buffer", "-p", "-r", "-t", "asking")
}

// rows wraps a line as a terminal does.
func rows(columns int, lines ...string) (all []string) {
	for _, line := range lines {
		r := []rune(line)
		for len(r) > columns {
			all, r = append(all, string(r[:columns])), r[columns:]
		}
		all = append(all, string(r))
	}
	return all
}

// TestScreens shows what a person sees while typing and pasting answers.
func TestScreens(t *testing.T) {
	t.Parallel()
	const serial = "308893286343609293989051180431574390766"
	const help = "`step certificate inspect FILE` shows the serial number of a certificate"
	for _, columns := range []int{80, 60, 40} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			t.Parallel()
			p := newPane(t, "serial", columns)
			room := columns - len("? Serial number: ") - 2
			tail := func(text string) string { // as much as fits
				if len(text) <= room {
					return text
				}
				return "…" + text[len(text)-room+1:]
			}
			seen := rows(columns, help)
			now := func(typed string) []string { return append(seen[:len(seen):len(seen)], "? Serial number: "+typed) }
			p.sees("the question", append(seen[:len(seen):len(seen)], "? Serial number:")...)
			for i := range serial[:20] {
				p.types("-l", serial[i:i+1])
				p.sees("typing", now(tail(serial[:i+1]))...)
			}
			p.types("C-u")
			p.sees("cleared", append(seen[:len(seen):len(seen)], "? Serial number:")...)
			p.pastes(strings.Repeat(serial, 6))
			p.sees("a paste that is too long", now(tail(strings.Repeat(serial, 6)))...)
			p.types("Enter")
			seen = now(tail(strings.Repeat(serial, 6)))
			seen = append(seen, "⚠ no serial number", "hint: another one")
			p.sees("wrong", append(seen[:len(seen):len(seen)], "? Serial number:")...)
			p.pastes(" " + serial[1:] + "\n")
			p.types("Home", "DC")
			p.types("-l", serial[:1]+"x")
			p.types("Left", "Right", "BSpace", "End", "BSpace")
			p.sees("edited", now(tail(serial))...)
			p.types("Enter")
			seen = append(seen, rows(columns, "✔ Serial number: "+serial)...)
			p.sees("answered", append(seen, rows(columns, "answer "+serial+", error <nil>, code 0.")...)...)
		})
	}
}

// TestNarrow shows other questions at 40 columns.
func TestNarrow(t *testing.T) {
	t.Parallel()
	const admin, kid = "admin (JWK) [kid: jEYSxOYSDNlwgqn9smoVS9TvkDQHgfhNbsEroJRcrm8]", "Please enter the password to decrypt the key of the provisioner \"admin\""
	choice := []string{"? Which provisioner do you want to use?", "? Provisioner", "  ▸ admin (JWK) [kid: jEYSxOYSDNlwgqn9…", "    证书 (JWK) [kid: jEYSxOYSDNlwgqn9s…", "    ci (X5C)"}
	const yes = "? Revoke 1,234,567 certificates? [y/n]"
	for _, tt := range []struct {
		question string
		steps    []step
	}{
		{"long choice", []step{
			{"", choice},
			{"x", choice},
			{"Down", []string{choice[0], choice[1], strings.Replace(choice[2], "▸", " ", 1), strings.Replace(choice[3], "    ", "  ▸ ", 1), choice[4]}},
			{"Up", choice},
			{"Enter", append(append(choice[:1:1], rows(40, "✔ Provisioner: "+admin)...), "answer 0, error <nil>, code 0.")},
		}},
		{"long password", []step{
			{"", append(rows(40, kid), "Password:")},
			{"secret", append(rows(40, kid), "Password:")},
			{"Enter", append(rows(40, kid), "Password:", "answer <nil>, error <nil>, code 0.")},
		}},
		{"long yes", []step{
			{"", []string{yes, "? [y/n]:"}},
			{"perhaps", []string{yes, "? [y/n]: perhaps"}},
			{"Enter", []string{yes, "? [y/n]: perhaps", "⚠ perhaps is not a valid answer", "? [y/n]:"}},
			{"y", []string{yes, "? [y/n]: perhaps", "⚠ perhaps is not a valid answer", "? [y/n]: y"}},
			{"Enter", []string{yes, "? [y/n]: perhaps", "⚠ perhaps is not a valid answer", "✔ [y/n]: y", "answer true, error <nil>, code 0."}},
		}},
		{"yes", []step{
			{"", []string{"? Sure? [y/n]:"}},
			{"C-c", []string{"? Sure? [y/n]:", "answer false, error interrupted, code 13", "0."}},
		}},
	} {
		t.Run(tt.question, func(t *testing.T) {
			t.Parallel()
			p := newPane(t, "'"+tt.question+"'", 40)
			for _, s := range tt.steps {
				if s.keys != "" {
					p.types(s.keys)
				}
				p.sees(s.keys, s.rows...)
			}
		})
	}
}

type step struct {
	keys string
	rows []string
}
