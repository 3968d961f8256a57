//go:build bench && unix

package main

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBench runs the scripts in testdata/bench, with the binary as it is
// released and one command more than the other scripts have:
//
//	ratio NAME LIMIT RUNS OURS THEIRS
//	    Run the commands OURS and THEIRS in turn, each with a new serial number,
//	    RUNS times each. A command is a program with its arguments, SERIAL among
//	    them, or a shell script, NAME.sh, which finds it in $serial. The median
//	    of OURS may be at most LIMIT times that of THEIRS: a ratio within one
//	    run, which other machines can be held to.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "step-revoke-plugin"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	params := scriptParams("testdata/bench")
	params.Cmds["ratio"] = cmdRatio
	params.Setup = func(env *testscript.Env) error {
		err := setupScript(env)
		env.Setenv("PATH", dir+":"+env.Getenv("PATH"))
		return err
	}
	testscript.Run(t, params)
}

func cmdRatio(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: ratio NAME LIMIT RUNS OURS THEIRS")
	}
	limit, err := strconv.ParseFloat(args[1], 64)
	ts.Check(err)
	runs, err := strconv.Atoi(args[2])
	ts.Check(err)
	times := [2][]time.Duration{}
	for range runs {
		for i, command := range args[3:] {
			serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
			ts.Check(err)
			ts.Setenv("serial", serial.String())
			words := strings.Fields(strings.ReplaceAll(command, "SERIAL", serial.String()))
			if strings.HasSuffix(command, ".sh") {
				words = []string{"sh", "-e", command}
			}
			start := time.Now()
			ts.Check(ts.Exec(words[0], words[1:]...))
			times[i] = append(times[i], time.Since(start))
		}
	}
	ours, theirs := median(times[0]), median(times[1])
	ratio := float64(ours) / float64(theirs)
	fmt.Printf("%-45s %8.1f ms / %8.1f ms = %.2f (at most %.2f)\n", args[0], ms(ours), ms(theirs), ratio, limit)
	if ratio > limit {
		ts.Fatalf("%s: the ratio is %.2f, more than %.2f", args[0], ratio, limit)
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
