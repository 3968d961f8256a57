//go:build unix

package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// keyToRead is the environment variable that makes the test binary read a key
// instead: each test needs a terminal, and a process, of its own.
const keyToRead = "INPUT_TEST_KEY"

func TestMain(m *testing.M) {
	file := os.Getenv(keyToRead)
	if file == "" {
		os.Exit(m.Run())
	}
	key, err := KeyFile{File: file, Flag: "--key", PasswordFlag: "--key-password-file", CertFlag: "--cert"}.Read(context.Background())
	fmt.Printf("a key: %t, %v\n", key != nil, err)
	if key != nil && problem.Clean("right", "") == "right" {
		fmt.Println("the password that was typed is not hidden")
	}
}

// TestTypedPassword types the password of a key.
func TestTypedPassword(t *testing.T) {
	t.Parallel()
	f := newKeyFiles(t)
	const wrong = "⚠ the password is wrong"
	for _, tt := range []struct {
		name, file string
		typed      []string
		want       string
	}{
		{"right", f.encrypted, []string{"right"}, "a key: true, <nil>"},
		{"third try", f.encrypted, []string{"guess", f.padded, "right"}, wrong + "|" + wrong + "|a key: true, <nil>"},
		{"nothing typed", f.encrypted, []string{"", "right"}, wrong + "|a key: true, <nil>"},
		{"OpenSSH", encryptedKey(t, pemutil.WithOpenSSH(true)), []string{"right"}, "a key: true, <nil>"},
		{"all wrong", f.encrypted, []string{"guess", "guess", "guess"}, wrong + "|" + wrong + "|" + wrong + "|a key: false, the password does not decrypt the key in " + f.encrypted},
		{"Ctrl-C", f.encrypted, []string{"guess", "\x03"}, wrong + "|a key: false, interrupted"},
		{"Ctrl-D", f.encrypted, []string{"\x04"}, "a key: false, --key-password-file is missing: no answer was given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			shown := typePasswords(t, tt.file, tt.typed)
			if got := strings.Join(strings.Fields(shown), " "); got != strings.ReplaceAll(tt.want, "|", " ") {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// typePasswords reads a key at a terminal of its own, and returns what that shows
// but for the questions.
func typePasswords(t *testing.T, file string, typed []string) (shown string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), keyToRead+"="+file, "NO_COLOR=1", "GORACE=atexit_sleep_ms=0")
	keyboard, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 400}) // wide enough for any question
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	for _, keys := range typed {
		shown += await(t, keyboard, "Please enter the password to decrypt "+file+": ")
		if _, err := io.WriteString(keyboard, keys+"\r"); err != nil {
			t.Fatal(err)
		}
	}
	rest, _ := io.ReadAll(keyboard)
	_ = cmd.Wait()
	return shown + string(rest)
}

// await returns what a terminal shows before some text.
func await(t *testing.T, in io.Reader, text string) string {
	t.Helper()
	var shown string
	for b := make([]byte, 1); ; {
		if before, found := strings.CutSuffix(shown, text); found {
			return before
		}
		if _, err := in.Read(b); err != nil {
			t.Fatalf("no %q in %q", text, shown)
		}
		shown += string(b)
	}
}

// TestInterrupted reads from a pipe that nobody writes to.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, certErr := Certificates(ctx, pipe, "--cert")
	_, keyErr := KeyFile{File: pipe}.Read(ctx)
	for _, err := range []error{certErr, keyErr} {
		if !errors.Is(err, problem.ErrInterrupted) || err.Error() != "interrupted" {
			t.Errorf("error %v", err)
		}
	}
}
