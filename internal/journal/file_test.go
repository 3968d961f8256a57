//go:build unix

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestMain is also the process that TestHalfWritten starts.
func TestMain(m *testing.M) {
	if name := os.Getenv("TEST_HALF_WRITTEN"); name != "" {
		if err := halfWritten(name); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestHalfWritten shows that a line that can be written only in part is taken
// back. The limit that makes it so holds for a whole process. It does not run in
// parallel: until that process has started it holds the locks of other tests.
func TestHalfWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_HALF_WRITTEN="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := listOf(t, "1", "2", "3")
	j, err := Open(t.Context(), name, true, list, agreed, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if got := strings.Join(doneIn(list), " "); got != "1 3" {
		t.Errorf("the journal has %s", got)
	}
}

// halfWritten writes a journal in which there is room for half of the second
// line, and then room for the third.
func halfWritten(name string) error {
	j, err := Open(context.Background(), name, false, &target.List{}, agreed, nil)
	if err != nil {
		return err
	}
	var before unix.Rlimit
	if err := errors.Join(j.Begin(Header{}), j.Write(revoked("1", "")), unix.Getrlimit(unix.RLIMIT_FSIZE, &before)); err != nil {
		return err
	}
	less := before
	setTo(&less.Cur, j.end+10)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &less); err != nil {
		return err
	}
	if err := j.Write(revoked("2", "")); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("error %w, want EFBIG", err)
	}
	if info, err := j.file.Stat(); err != nil || info.Size() != j.end {
		return fmt.Errorf("half a line was left: %d bytes, not %d, %w", info.Size(), j.end, err)
	}
	return errors.Join(unix.Setrlimit(unix.RLIMIT_FSIZE, &before), j.Write(revoked("3", "")), j.Close())
}

// setTo sets a limit, whose type differs from system to system.
func setTo[T int64 | uint64](limit *T, n int64) { *limit = T(n) }

// TestForeignFiles opens what a journal must not be.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	journal, shared, link, pipe := path("journal"), path("shared"), path("link"), path("pipe")
	fill(t, journal, listOf(t, "1"))
	fill(t, shared, listOf(t, "1"))
	if err := errors.Join(os.Chmod(shared, 0o620), os.Symlink(journal, link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(journal); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new journal: %v, %v", info.Mode(), err)
	}
	foreign, want := "/etc/passwd", "opening the journal: "
	if os.Geteuid() == 0 {
		foreign, want = path("foreign"), "the journal "+path("foreign")+" belongs to another user"
		fill(t, foreign, listOf(t, "1"))
		if err := os.Chown(foreign, 54321, -1); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		shared:     "others can write to the journal " + shared + " (mode 0620)",
		link:       "opening the journal: open " + link,
		pipe:       "the journal " + pipe + " is not a regular file",
		os.DevNull: "the journal /dev/null is not a regular file",
		dir:        "opening the journal: open " + dir,
		foreign:    want,
	} {
		_, err := Open(t.Context(), name, false, listOf(t, "1"), agreed, nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Join(problem.Hints(err), "|") != ownFileHint {
			t.Errorf("%s: %v, hints %q", name, err, problem.Hints(err))
		}
	}
}

// TestLock shows that a journal has one run at a time, and that the others leave
// it where it is.
func TestLock(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "journal")
	first, err := Open(t.Context(), name, false, listOf(t, "1"), agreed, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), name, false, listOf(t, "1"), agreed, nil)
	if err == nil || err.Error() != "the journal "+name+" is in use: another run holds it open" {
		t.Errorf("held by another: %v", err)
	}
	if want := "wait until that ends; or use another journal: a certificate that is already revoked is not a failure"; strings.Join(problem.Hints(err), "|") != want {
		t.Errorf("hints %q", problem.Hints(err))
	}
	if err := errors.Join(first.Begin(Header{}), first.Write(revoked("1", "")), first.Close()); err != nil {
		t.Fatal(err)
	}
	list := listOf(t, "1")
	second, err := Open(t.Context(), name, false, list, agreed, nil)
	if err != nil || len(doneIn(list)) != 1 {
		t.Fatalf("afterwards: %v, done are %v", err, doneIn(list))
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestAwaited shows that a run that is about to end is waited for, even one that
// takes its journal away, and that a signal ends the wait.
func TestAwaited(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "journal")
	open := func(busy func()) (*Journal, error) {
		return Open(t.Context(), name, false, listOf(t, "1"), agreed, busy)
	}
	first, err := open(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := open(func() { _ = first.Close() }) // which removes it
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Begin(Header{}); err != nil {
		t.Fatal(err)
	}
	third, err := open(func() { _ = second.Close() })
	if err != nil || third.Found().Header == nil {
		t.Fatalf("%v, found %+v", err, third.Found())
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Open(ctx, name, false, listOf(t, "1"), agreed, cancel); !errors.Is(err, problem.ErrInterrupted) {
		t.Errorf("after a signal: %v", err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}
