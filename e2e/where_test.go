//go:build unix

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
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
