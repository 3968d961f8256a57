//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHalfWritten shows that the journal takes back a line that fits only in
// part, and goes on with the next one once there is room again. It must not run
// in parallel: it limits the size of the files that this process writes.
func TestHalfWritten(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "journal")
	j := &journal{}
	check(j.open(name))
	check(j.write(&object{Serial: "1"}))
	var before unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	less := before
	setTo(&less.Cur, j.end+j.end/2)
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &less))
	err := j.write(&object{Serial: "2"})
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("error %v, want EFBIG", err)
	}
	check(j.write(&object{Serial: "3"}))
	check(j.close())
	text, err := os.ReadFile(name)
	check(err)
	lines := strings.SplitAfter(string(text), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], `{"serial":"1"`) || !strings.HasPrefix(lines[1], `{"serial":"3"`) || lines[2] != "" {
		t.Errorf("the journal is\n%s", text)
	}
}

// setTo sets a limit, whose type differs from system to system.
func setTo[T int64 | uint64](limit *T, n int64) { *limit = T(n) }
