//go:build unix

package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// listOfSerials writes N new serial numbers to a file.
func listOfSerials(ts *testscript.TestScript, n int) (file string) {
	file = ts.MkAbs("serials")
	ts.Check(os.WriteFile(file, []byte(strings.Join(newSerials(n), "\n")), 0o600))
	return file
}

// newSerials returns n serial numbers of the size that step-ca chooses.
func newSerials(n int) []string {
	list := make([]string, n)
	for i := range list {
		var serial [16]byte
		binary.BigEndian.PutUint64(serial[:], rand.Uint64()|1<<56)
		binary.BigEndian.PutUint64(serial[8:], rand.Uint64())
		list[i] = new(big.Int).SetBytes(serial[:]).String()
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

// awaitLines waits until a file has n lines. It returns an error if the program
// that writes the file ends first.
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
		cmd.Dir, cmd.Env = ts.MkAbs("."), pluginEnv(ts)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		before := countLines(journal)
		ts.Check(cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		// Ten runs of 100 on average leave a part of 2,000 undone.
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
	var header struct {
		Journal         int
		RootFingerprint string
	}
	ts.Check(json.Unmarshal([]byte(lines[0]), &header))
	if header.Journal != 1 || header.RootFingerprint == "" {
		ts.Fatalf("the header is %s", lines[0])
	}
	times := map[string]int{}
	for _, line := range lines[1:] {
		o, err := conform([]byte(line))
		ts.Check(err)
		if o.Status == "revoked" || o.Status == "already-revoked" {
			times[o.Serial]++
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
