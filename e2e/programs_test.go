//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [args...]")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	re, file := regexp.MustCompile("(?m)"+args[1]), ts.MkAbs(args[0])
	for deadline := time.Now().Add(tooLong); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(file)
		switch {
		case re.Match(text):
			return
		case time.Now().After(deadline):
			ts.Fatalf("%s never matches %s (%v):\n%s", args[0], args[1], err, text)
		}
	}
}

// uponMain is the program upon. Its exit code is that of the program that it
// runs, or 125 if that ended too early or too late.
func uponMain() {
	if len(os.Args) < 5 {
		refuse("usage: upon FILE REGEXP SIGNAL PROGRAM [args...]")
	}
	file, re, signal := os.Args[1], regexp.MustCompile("(?m)"+os.Args[2]), unix.SignalNum("SIG"+os.Args[3])
	cmd := exec.Command(os.Args[4], os.Args[5:]...)
	var heard lockedBuffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, io.MultiWriter(os.Stderr, &heard)
	if err := cmd.Start(); err != nil {
		refuse(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ticks := time.NewTicker(10 * time.Millisecond)
	seen := func() bool {
		text := heard.Bytes()
		if file != "-" {
			text, _ = os.ReadFile(file)
		}
		return re.Match(text)
	}
	for end := time.After(tooLong / 2); !seen(); {
		select {
		case <-ticks.C:
		case <-done:
			refuse("the program has ended before it was sent a signal")
		case <-end:
			_ = cmd.Process.Kill()
			refuse("what the signal waits for does not happen")
		}
	}
	if err := cmd.Process.Signal(signal); err != nil {
		refuse(err)
	}
	select {
	case <-done:
	case <-time.After(5*time.Second + slack):
		_ = cmd.Process.Kill()
		refuse("the program did not end within 5 seconds")
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// withinMain is the program within.
func withinMain() {
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		refuse(err)
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		refuse(err)
	}
	timer := time.AfterFunc(tooLong, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	timer.Stop()
	if took := time.Since(start); took > time.Duration(seconds)*time.Second+slack {
		refuse(fmt.Sprintf("the program took %s", took))
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

func refuse(why any) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), why)
	os.Exit(125)
}

// A lockedBuffer can be read while it is written to.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.buffer.Bytes())
}

// slack is added to all time limits, because the machine is busy. With it the
// 5 seconds of many limits stay below the 10 seconds of --timeout.
const slack = 4500 * time.Millisecond

// peakFile names the variable for the file that peak writes to.
const peakFile = "PEAK_FILE"

// peakMain is the program peak: it runs a program, discards its standard output,
// and prints its peak of memory in MB; or it writes that to $PEAK_FILE, and is
// the program in all else. The tests cannot do this themselves: the kernel counts
// the memory that a parent has when it starts a child.
func peakMain() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	file := os.Getenv(peakFile)
	if file != "" {
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	}
	if err := cmd.Run(); err != nil && (file == "" || cmd.ProcessState == nil) {
		refuse(err)
	}
	unit := int64(1 << 10) // of getrusage(2), but on macOS
	if runtime.GOOS == "darwin" {
		unit = 1
	}
	peak := int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * unit >> 20
	if file == "" {
		fmt.Println(peak)
		return
	}
	if err := os.WriteFile(file, []byte(strconv.FormatInt(peak, 10)), 0o600); err != nil {
		refuse(err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
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
