//go:build unix

package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
)

// questionsFile is a table; the comment at its top explains it.
const questionsFile = "testdata/where/questions"

func testContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), tooLong)
}

// A question is what --where is asked, and what it must answer.
type question struct {
	args  []string
	names []string // what is to be revoked; nil: nothing matches
	rest  string   // of the summary
}

func parseQuestions(table string) (list []question) {
	for line := range strings.Lines(table) {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "\t"):
			q := &list[len(list)-1]
			if strings.TrimSpace(line) == "no match" {
				continue
			}
			names, rest, _ := strings.Cut(line, ";")
			q.names, q.rest = append([]string{}, strings.Fields(names)...), strings.TrimSpace(rest)
			if q.rest == "" {
				q.rest = "0 revoked, 0 expired"
			}
		default:
			var q question
			for _, word := range strings.Fields(line) {
				if strings.Contains(word, "=") {
					q.args = append(q.args, "--where")
				}
				q.args = append(q.args, word)
			}
			list = append(list, q)
		}
	}
	return list
}

func cmdAnswers(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: answers [FLAGS...]")
	}
	table, err := os.ReadFile(questionsFile)
	ts.Check(err)
	s, err := theStock()
	ts.Check(err)
	names := map[string]string{}
	for _, c := range s.certs {
		names[c.cert.SerialNumber.String()] = c.name
	}
	questions, wrong := parseQuestions(string(table)), 0
	for _, q := range questions {
		if err := q.ask(ts, args, names); err != nil {
			if wrong++; wrong > 5 {
				continue
			}
			ts.Logf("%s\n\t%v", strings.Join(q.args, " "), err)
		}
	}
	if wrong > 0 {
		ts.Fatalf("%d of %d answers are wrong", wrong, len(questions))
	}
}

var summary = regexp.MustCompile(`Looked at [0-9]+ certificates: ([0-9]+) match(?:es)?, ([0-9]+) of them revoked, ([0-9]+) expired; ([0-9]+) to be revoked`)

// ask compares the answer to a question in a dry run. The names are by serial
// numbers.
func (q question) ask(ts *testscript.TestScript, flags []string, names map[string]string) error {
	cmd := exec.Command(ts.Getenv("plugin"), slices.Concat([]string{"--dry-run", "--format", "json"}, q.args, flags)...)
	cmd.Dir, cmd.Env = ts.Getenv("WORK"), pluginEnv(ts)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if q.names == nil {
		if cmd.ProcessState.ExitCode() != 1 || len(out) > 0 || !strings.Contains(stderr.String(), "error: no certificate matches; looked at ") {
			return fmt.Errorf("%v:\n%s%s", err, out, &stderr)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w:\n%s", err, &stderr)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		o, err := conform([]byte(line))
		if err != nil {
			return err
		}
		got = append(got, names[o.Serial])
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(q.names)); !slices.Equal(got, want) {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	n := summary.FindStringSubmatch(stderr.String())
	if n == nil {
		return fmt.Errorf("no summary:\n%s", &stderr)
	}
	var revoked, expired int
	if _, err := fmt.Sscanf(q.rest, "%d revoked, %d expired", &revoked, &expired); err != nil {
		return err
	}
	want := fmt.Sprint([]int{len(q.names) + revoked + expired, revoked, expired, len(q.names)})
	if got := fmt.Sprint(n[1:]); got != want {
		return fmt.Errorf("the summary says %s, want %s", got, want)
	}
	return nil
}

func cmdOnlyRefused(ts *testscript.TestScript, neg bool, names []string) {
	if neg {
		ts.Fatalf("usage: only-refused [NAME...]")
	}
	s, err := theStock()
	ts.Check(err)
	ca := current(ts)
	m := stockMaker{stock: s, ca: ca}
	var refused []string
	for _, c := range s.certs {
		if c.stuck || c.revoked {
			continue
		}
		if _, err := m.request(c, "/renew", nil); err != nil {
			refused = append(refused, c.name)
			ts.Logf("%s: %v", c.name, err)
		}
	}
	slices.Sort(refused)
	if want := slices.Sorted(slices.Values(names)); !slices.Equal(refused, want) {
		ts.Fatalf("not renewed are %q, want %q", refused, want)
	}
}

func cmdOnlyRecorded(ts *testscript.TestScript, neg bool, names []string) {
	if neg {
		ts.Fatalf("usage: only-recorded [NAME...]")
	}
	s, err := theStock()
	ts.Check(err)
	stored, err := current(ts).database()
	ts.Check(err)
	want := map[string]string{}
	for _, c := range s.certs {
		if c.revoked || slices.Contains(names, c.name) {
			want[c.cert.SerialNumber.String()] = c.name
		}
	}
	for key := range stored {
		serial, ok := strings.CutPrefix(key, "revoked_x509_certs/")
		if _, wanted := want[serial]; ok && regexp.MustCompile("^[1-9][0-9]*$").MatchString(serial) && !wanted {
			ts.Fatalf("the CA's database holds a revocation of %s", serial)
		}
		delete(want, serial)
	}
	if len(want) > 0 {
		ts.Fatalf("the CA's database holds no revocations of %q", slices.Collect(maps.Values(want)))
	}
}

func cmdPut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put TABLE/KEY FILE")
	}
	ca := current(ts)
	ts.Check(ca.put(map[string]string{args[0]: ts.ReadFile(args[1])}))
}

func cmdLoaded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: loaded N ARGS...")
	}
	runs, err := strconv.Atoi(args[0])
	ts.Check(err)
	l, err := newLoad(current(ts))
	ts.Check(err)
	base := looked(ts, args[1:])
	l.start()
	last := base
	for range runs {
		least, most := base+int(l.issued.Load()), 0
		n := looked(ts, args[1:])
		most = base + int(l.begun.Load())
		if n < max(least, last) || n > most {
			ts.Fatalf("looked at %d certificates; %d were issued before, %d until then, and %d were there last time", n, least, most, last)
		}
		last = n
	}
	ts.Check(l.stop())
	if n := looked(ts, args[1:]); n != base+int(l.issued.Load()) {
		ts.Fatalf("looked at %d certificates of %d", n, base+int(l.issued.Load()))
	}
	fmt.Fprintf(ts.Stdout(), "%d runs while %d certificates were issued\n", runs, last-base)
}

var lookedAt = regexp.MustCompile(`(?m)^Looked at ([0-9,]+) certificates: `)

// looked runs the plugin and returns how many certificates it has looked at.
func looked(ts *testscript.TestScript, args []string) int {
	cmd := exec.Command(ts.Getenv("plugin"), args...)
	cmd.Dir, cmd.Env = ts.Getenv("WORK"), pluginEnv(ts)
	out, err := cmd.CombinedOutput()
	n := lookedAt.FindSubmatch(out)
	if err != nil || n == nil {
		ts.Fatalf("%v:\n%s", err, out)
	}
	number, err := strconv.Atoi(strings.ReplaceAll(string(n[1]), ",", ""))
	ts.Check(err)
	return number
}

// A load has a CA issue certificates all the time. They are large, so that Badger
// writes tables meanwhile.
type load struct {
	stockMaker
	client        *http.Client
	begun, issued atomic.Int64
	done          chan struct{}
	failed        chan error
}

func newLoad(ca *scriptCA) (*load, error) {
	key, err := os.ReadFile(filepath.Join(ca.dir, "provisioner-key"))
	if err != nil {
		return nil, err
	}
	jwk, err := jose.ParseKey(key)
	if err != nil {
		return nil, err
	}
	l := &load{stockMaker: stockMaker{ca: ca, jwks: map[string]*jose.JSONWebKey{"admin": jwk}}, done: make(chan struct{}), failed: make(chan error, 1)}
	l.client, err = ca.client()
	return l, err
}

const loadNames = 200 // of each certificate

func (l *load) start() {
	go func() {
		var err error
		for n := 0; err == nil; n++ {
			select {
			case <-l.done:
				l.failed <- nil
				return
			default:
				err = l.issue(n)
			}
		}
		l.failed <- err
	}()
}

func (l *load) issue(n int) error {
	s := &stocked{how: "admin", cn: fmt.Sprintf("load%d", n)}
	for i := range loadNames {
		s.sans = append(s.sans, [2]string{"dns", fmt.Sprintf("%d.of.many.names.load%d.example.com", i, n)})
	}
	var err error
	if s.key, err = newKey(""); err != nil {
		return err
	}
	l.begun.Add(1)
	if err = l.make(s); err == nil {
		l.issued.Add(1)
	}
	return err
}

func (l *load) stop() error {
	close(l.done)
	return <-l.failed
}

func cmdCutShort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: cut-short KILL|TERM TIMES ARGS...")
	}
	times, err := strconv.Atoi(args[1])
	ts.Check(err)
	signal := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[args[0]]
	dir := filepath.Join(ts.Getenv("WORK"), "copies")
	ts.Check(os.Mkdir(dir, 0o777))
	defer os.RemoveAll(dir)
	left, start := 0, time.Now()
	looked(ts, args[2:])
	whole := time.Since(start)
	for range times {
		cmd := exec.Command(ts.Getenv("plugin"), args[2:]...)
		cmd.Dir, cmd.Env = ts.Getenv("WORK"), append(pluginEnv(ts), "TMPDIR="+dir)
		ts.Check(cmd.Start())
		time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		entries, err := os.ReadDir(dir)
		ts.Check(err)
		left += len(entries)
		for _, entry := range entries {
			info, err := entry.Info()
			ts.Check(err)
			if info.Mode().Perm() != 0o700 || signal == syscall.SIGTERM {
				ts.Fatalf("%v is left, with the mode %v", entry, info.Mode())
			}
			ts.Check(os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	fmt.Fprintf(ts.Stdout(), "left %d times\n", left)
}
