//go:build unix

package main

// More commands for scripts: many certificates.
//
//	serials FILE N
//	    Write N new serial numbers, of certificates that were never issued, to a
//	    file, a line each.
//	lines FILE N
//	    Wait until the file has so many lines.
//	killed TIMES JOURNAL PROGRAM [args...]
//	    Run a program as often, and kill it each time when it has written some more
//	    lines to its journal, a random number that leaves something to do.
//	exec half-written JOURNAL
//	    Write a new journal, of which the second line fits in half; then there is
//	    room again for the third.
//	journaled LIST JOURNAL
//	    The journal has a header, and says of each serial number in the list exactly
//	    once that it is revoked.
//	memory MOST N ARGS...
//	    Run the plugin with these arguments on N serial numbers; it may take MOST
//	    megabytes of memory. The race detector takes many times as much, so this
//	    is for the binary as it is released.
//	[!] all-recorded LIST
//	    The CA's database holds a revocation of every serial number in the list.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestMass runs the scripts in testdata/mass, whose batches keep all processors
// busy, apart from those that look at the time.
func TestMass(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/mass"))
}

// TestMemory runs the scripts in testdata/memory with the binary as it is
// released.
func TestMemory(t *testing.T) {
	testscript.Run(t, releasedParams(t, "testdata/memory"))
}

// releasedParams are the parameters of scripts whose plugin is built as it is
// released.
func releasedParams(t *testing.T, dir string) testscript.Params {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	params := scriptParams(dir)
	params.Setup = func(env *testscript.Env) error {
		err := setupScript(env)
		env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
		return err
	}
	return params
}

// peakMain is the program peak: it runs a program, whose standard output is lost,
// and prints the most memory it had, in MB. It must be no child of the tests
// themselves: the kernel would count what those have at that moment.
func peakMain() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		refuse(err)
	}
	unit := int64(1 << 10) // of getrusage(2), but on macOS
	if runtime.GOOS == "darwin" {
		unit = 1
	}
	fmt.Println(int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * unit >> 20)
}

func cmdMemory(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: memory MOST N ARGS...")
	}
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(ts.Exec("peak", append([]string{"step-revoke-plugin"}, append(args[2:], "--from", listOfSerials(ts, n))...)...))
	peak, err := strconv.ParseInt(strings.TrimSpace(ts.ReadFile("stdout")), 10, 64)
	ts.Check(err)
	fmt.Printf("%-45s %8d MB (at most %d)\n", fmt.Sprintf("memory, %d serial numbers %v", n, args[2:]), peak, most)
	if peak > int64(most) {
		ts.Fatalf("%d MB, more than %d", peak, most)
	}
}

// halfWrittenMain is the program half-written: it writes a journal, JOURNAL, in
// which there is room for half a line more, and again when there is more room.
func halfWrittenMain() {
	j := &journal{}
	check := func(err error) {
		if err != nil {
			refuse(err)
		}
	}
	check(j.open(os.Args[1]))
	var before unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	check(j.write(&object{Serial: "1"}))
	less := before
	setTo(&less.Cur, j.end+j.end/2)
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &less))
	if err := j.write(&object{Serial: "2"}); !errors.Is(err, unix.EFBIG) {
		refuse(fmt.Sprintf("error %v, want EFBIG", err))
	}
	if info, err := j.file.Stat(); err != nil || info.Size() != j.end {
		refuse("half a line was left")
	}
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
	check(j.write(&object{Serial: "3"}))
	check(j.close())
}

// setTo sets a limit, whose type differs from system to system.
func setTo[T int64 | uint64](limit *T, n int64) { *limit = T(n) }

// listOfSerials writes N new serial numbers to a file.
func listOfSerials(ts *testscript.TestScript, n int) (file string) {
	file = ts.MkAbs("serials")
	ts.Check(os.WriteFile(file, []byte(strings.Join(newSerials(n), "\n")), 0o600))
	return file
}

// newSerials are so many serial numbers as step-ca chooses them.
func newSerials(n int) []string {
	list := make([]string, n)
	for i := range list {
		var serial serialNumber
		for j := 4; j < len(serial); j++ {
			serial[j] = byte(rand.Uint32())
		}
		serial[4] |= 1
		list[i] = serial.String()
	}
	return list
}

func cmdSerials(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: serials FILE N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(newSerials(n), "\n")+"\n"), 0o600))
}

// countLines counts the lines of a file that may not be there yet.
func countLines(file string) int {
	text, _ := os.ReadFile(file)
	return bytes.Count(text, []byte("\n"))
}

func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(awaitLines(ts.MkAbs(args[0]), n, nil))
}

// awaitLines waits until a file has so many lines. That a program has ended
// that writes it is an error.
func awaitLines(file string, n int, ended <-chan struct{}) error {
	ticks := time.NewTicker(2 * time.Millisecond)
	defer ticks.Stop()
	timeout := time.After(tooLong)
	for countLines(file) < n {
		select {
		case <-ticks.C:
		case <-ended:
			return fmt.Errorf("the program has ended with %d lines in %s, not %d", countLines(file), file, n)
		case <-timeout:
			return fmt.Errorf("%s has %d lines, not %d", file, countLines(file), n)
		}
	}
	return nil
}

func cmdKilled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: killed TIMES JOURNAL PROGRAM [args...]")
	}
	times, err := strconv.Atoi(args[0])
	ts.Check(err)
	journal := ts.MkAbs(args[1])
	for range times {
		cmd := exec.Command(ts.Getenv("plugin"), args[3:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), []string{"HOME=" + ts.Getenv("HOME"), "STEPPATH=" + ts.Getenv("STEPPATH"), "GORACE=" + ts.Getenv("GORACE")}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		before := countLines(journal)
		ts.Check(cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		// On the average ten times that leaves some of 2,000 undone.
		err := awaitLines(journal, before+1+rand.IntN(200), ended)
		_ = cmd.Process.Kill()
		<-ended
		if err != nil {
			ts.Fatalf("%v\n%s", err, &out)
		}
		ts.Logf("killed with %d lines", countLines(journal))
	}
}

func cmdJournaled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: journaled LIST JOURNAL")
	}
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile(args[1]), "\n"), "\n")
	var header journalHeader
	ts.Check(json.Unmarshal([]byte(lines[0]), &header))
	if header.Journal != journalVersion || header.Root == "" {
		ts.Fatalf("the header is %s", lines[0])
	}
	times := map[string]int{}
	for _, line := range lines[1:] {
		status, err := conform([]byte(line))
		ts.Check(err)
		var object object
		ts.Check(json.Unmarshal([]byte(line), &object))
		if status.done() {
			times[object.Serial]++
		} else {
			ts.Logf("%s", line)
		}
	}
	for _, serial := range strings.Fields(ts.ReadFile(args[0])) {
		if times[serial] != 1 {
			ts.Fatalf("the journal says %d times that %s is revoked", times[serial], serial)
		}
		delete(times, serial)
	}
	if len(times) > 0 {
		ts.Fatalf("the journal has %d others", len(times))
	}
}

func cmdAllRecorded(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] all-recorded LIST")
	}
	stored, err := current(ts).database()
	ts.Check(err)
	missing := 0
	for _, serial := range strings.Fields(ts.ReadFile(args[0])) {
		if _, ok := stored["revoked_x509_certs/"+serial]; !ok {
			missing++
		}
	}
	if missing > 0 != neg {
		ts.Fatalf("the CA's database lacks %d revocations", missing)
	}
}
