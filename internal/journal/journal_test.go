package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// listOf returns a list of serial numbers in decimal.
func listOf(t testing.TB, serials ...string) *target.List {
	t.Helper()
	list := &target.List{}
	for _, s := range serials {
		serial, err := target.ParseSerial(s)
		if err != nil {
			t.Fatal(err)
		}
		list.Add(serial, nil)
	}
	return list
}

// doneIn returns the serial numbers of the targets that are done.
func doneIn(list *target.List) (serials []string) {
	for _, t := range list.All {
		if t.Done {
			serials = append(serials, t.Serial.String())
		}
	}
	return serials
}

func agreed(*Header) error { return nil }

// fill writes a header and the objects to a journal that does not exist yet.
func fill(t *testing.T, name string, list *target.List, objects ...*revocation.Object) {
	t.Helper()
	j, err := Open(t.Context(), name, false, list, agreed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Begin(Header{CA: "https://ca", Root: "f00", Targets: len(list.All), TargetsDigest: list.Digest()}); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := j.Write(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func revoked(serial, time string) *revocation.Object {
	return &revocation.Object{Serial: serial, Status: revocation.Revoked, Attempts: 2, Time: time, RequestID: "id-" + serial, AuthorizedBy: "nobody"}
}

// TestOtherTargets shows which lists are others than the one that a journal was begun
// for: not one that has only grown.
func TestOtherTargets(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "journal")
	fill(t, name, listOf(t, "1", "2", "3"), revoked("2", "2026-01-02T03:04:05Z"))
	for _, tt := range []struct {
		serials []string
		want    bool
	}{
		{[]string{"3", "2", "1"}, false},
		{[]string{"1", "2", "3", "4"}, false},
		{[]string{"1", "2"}, true},
		{[]string{"2", "3", "4"}, true},
		{[]string{"1", "3", "4", "5"}, true},
	} {
		j, err := Open(t.Context(), name, true, listOf(t, tt.serials...), agreed, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := j.Found().OtherTargets; got != tt.want {
			t.Errorf("%v: %t, want %t", tt.serials, got, tt.want)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestResume goes on with a journal of a run that came half way.
func TestResume(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "journal")
	fill(t, name, listOf(t, "1", "2", "3", "4"),
		revoked("2", "2026-01-02T03:04:06Z"),
		&revocation.Object{Serial: "1", Status: revocation.AlreadyRevoked, Time: "2026-01-02T03:04:05Z"},
		&revocation.Object{Serial: "3", Status: revocation.Failed, Time: "2026-01-02T03:04:04Z", Error: "no"},
		&revocation.Object{Serial: "4", Status: revocation.Unknown},
		revoked("2", "2026-01-02T03:04:03Z")) // of a run with two lines for one certificate

	list := listOf(t, "1", "2", "3", "4", "5")
	j, err := Open(t.Context(), name, false, list, agreed, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := j.Found()
	if found.Done != 2 || found.Since != time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) || found.OtherTargets || found.Header == nil ||
		!reflect.DeepEqual(*found.Header, Header{Journal: 1, CA: "https://ca", Root: "f00", Targets: 4, TargetsDigest: listOf(t, "4", "3", "2", "1").Digest()}) {
		t.Errorf("found %+v, header %+v", found, found.Header)
	}
	if got := doneIn(list); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("done are %v", got)
	}
	list.DropIndex()
	if err := errors.Join(j.Begin(Header{CA: "another"}), j.Write(revoked("5", "2026-01-02T03:04:07Z"))); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = j.Outcomes(list, func(o *revocation.Outcome) {
		got = append(got, o.Target.Serial.String()+" "+string(o.Status)+" "+o.RequestID+" "+o.AuthorizedBy+" "+revocation.Stamp(o.Time))
	})
	want := []string{"2 revoked id-2 nobody 2026-01-02T03:04:06Z", "1 already-revoked   2026-01-02T03:04:05Z"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("outcomes %q, %v, want %q", got, err, want)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil || bytes.Count(text, []byte("\n")) != 7 || bytes.Contains(text, []byte("another")) {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestCutAnywhere cuts a journal off after every byte, or replaces all behind it
// by the zeros of a file system that had made room for it and more. It goes on
// with what is left, and finds the same targets done in the end.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "journal")
	serials := []string{"340282366920938463463374607431768211455", "2", "3"}
	list := listOf(t, serials...)
	fill(t, name, list, revoked(serials[0], "2026-01-02T03:04:05Z"), revoked(serials[1], "2026-01-02T03:04:06Z"), revoked(serials[2], "2026-01-02T03:04:07Z"))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n')
	for _, room := range []int{0, 4096, 3 * target.MaxLine} {
		for n := range len(whole) + 1 {
			if room > 0 && n < last || room > 4096 && n%50 > 0 {
				continue // these take time
			}
			left := append(bytes.Clone(whole[:n]), make([]byte, room)...)
			if err := os.WriteFile(name, left, 0o600); err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(whole[:n], []byte("\n"))
			if err := goOn(t, name, serials, max(0, lines-1), lines > 0); err != nil {
				t.Fatalf("%d bytes and %d zeros: %v", n, room, err)
			}
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, whole) {
				t.Fatalf("%d bytes and %d zeros: %v, the journal is now\n%s", n, room, err, got)
			}
		}
	}
}

// goOn goes on with a journal in which the first of the serial numbers are done.
func goOn(t *testing.T, name string, serials []string, done int, hasHeader bool) error {
	list := listOf(t, serials...)
	j, err := Open(t.Context(), name, false, list, agreed, nil)
	if err != nil {
		return err
	}
	if found := j.Found(); found.Done != done || (found.Header != nil) != hasHeader || found.OtherTargets || found.Damaged > 0 {
		return fmt.Errorf("found %+v", found)
	}
	if got := doneIn(list); !slices.Equal(got, serials[:done]) {
		return fmt.Errorf("done are %v", got)
	}
	err = j.Begin(Header{CA: "https://ca", Root: "f00", Targets: len(serials), TargetsDigest: list.Digest()})
	for i, target := range list.All {
		if !target.Done && err == nil {
			err = j.Write(revoked(serials[i], "2026-01-02T03:04:0"+string(rune('5'+i))+"Z"))
		}
	}
	return errors.Join(err, j.Close())
}

// TestGaps reads journals in which zeros stand for what was never written, and
// lines after it that were.
func TestGaps(t *testing.T) {
	t.Parallel()
	serials := []string{"1", "2", "3", "4"}
	original := filepath.Join(t.TempDir(), "journal")
	fill(t, original, listOf(t, serials...), revoked("1", ""), revoked("2", ""), revoked("3", ""), revoked("4", ""))
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	begin := func(n int) int { return len(bytes.Join(lines[:n], nil)) } // of line n, from 0
	for _, tt := range []struct {
		name     string
		from, to int // what is zero
		more     string
		done     string
		damaged  int
	}{
		{"a whole line", begin(2), begin(3) - 1, "", "1 3 4", 1},
		{"a line with its line break", begin(2), begin(3), "", "1 4", 1},
		{"parts of two lines", begin(2) + 5, begin(3) + 5, "", "1 4", 1},
		{"the end of the last line", begin(4) + 5, begin(5) - 1, "", "1 2 3", 0},
		{"zeros at the end, with a line break", begin(5), begin(5), "\x00\x00\n", "1 2 3 4", 0},
		{"pages of them", begin(5), begin(5), strings.Repeat("\x00", 2*target.MaxLine) + "\n", "1 2 3 4", 0},
	} {
		name := filepath.Join(t.TempDir(), "journal")
		left := append(bytes.Clone(text), tt.more...)
		clear(left[tt.from:tt.to])
		if err := os.WriteFile(name, left, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a run that goes on, and the one after it
			list := listOf(t, serials...)
			j, err := Open(t.Context(), name, false, list, agreed, nil)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if got := strings.Join(doneIn(list), " "); got != tt.done || j.Found().Damaged != tt.damaged {
				t.Errorf("%s: done are %s, want %s; %d lines are damaged", tt.name, got, tt.done, j.Found().Damaged)
			}
			n := 0
			err = errors.Join(j.Begin(Header{}), j.Write(&revocation.Object{Serial: "4", Status: revocation.Failed}), j.Outcomes(list, func(*revocation.Outcome) { n++ }), j.Close())
			if err != nil || n != j.Found().Done {
				t.Errorf("%s: %d outcomes, %v", tt.name, n, err)
			}
		}
	}
}

// TestRefused opens what is no journal, or none for this run.
func TestRefused(t *testing.T) {
	t.Parallel()
	header, err := json.Marshal(&Header{Journal: 1})
	if err != nil {
		t.Fatal(err)
	}
	const notOurs = "NAME is not a journal of this program"
	for _, tt := range []struct {
		name, text, want, hint string
	}{
		{"a list", "123\n", notOurs, newNameHint},
		{"a list without a line break", "123", notOurs, newNameHint},
		{"an object", `{"serial":"1"}` + "\n", notOurs, newNameHint},
		{"a later version", `{"journal":2,"ca":"x"}` + "\n", notOurs, newNameHint},
		{"a torn later version", `{"journal":2,"c`, notOurs, newNameHint},
		{"zeros", "\x00\x00\x00", notOurs, newNameHint},
		{"a spoilt line", string(header) + "\nspoilt\n", "NAME, line 2 is not a line of a journal", AnotherHint},
		{"a line after gaps that is spoilt", string(header) + "\n\x00\x00\nspoilt\n", "NAME, line 3 is not a line of a journal", AnotherHint},
		{"a line of another program", string(header) + "\n{}\n", "NAME, line 2 is not a line of a journal", AnotherHint},
		{"a key twice", string(header) + "\n" + `{"serial":"1","status":"failed","status":"revoked"}` + "\n", "NAME, line 2 is not a line of a journal", AnotherHint},
		{"two journals in one", string(header) + "\n" + string(header) + "\n", "NAME, line 2 is not a line of a journal", AnotherHint},
		{"a header in another case", `{"JOURNAL":1}` + "\n", notOurs, newNameHint},
		{"a header with gaps", string(header[:20]) + "\x00\n" + string(header) + "\n", notOurs, newNameHint},
		{"a torn header with gaps", string(header[:5]) + "\x00\x00", notOurs, newNameHint},
		{"a long line", string(header) + "\n" + strings.Repeat(" ", target.MaxLine+1), "reading the journal: a line has more than 1048576 bytes", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), name, false, listOf(t, "1"), agreed, nil)
			if err == nil || err.Error() != strings.Replace(tt.want, "NAME", name, 1) || strings.Join(problem.Hints(err), "|") != tt.hint {
				t.Errorf("%v, hints %q", err, problem.Hints(err))
			}
			if text, err := os.ReadFile(name); err != nil || string(text) != tt.text {
				t.Errorf("the file has changed: %v", err)
			}
		})
	}
}

// TestLeftAlone shows which files are made, kept and removed.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "journal")
	exists := func() bool { _, err := os.Stat(name); return err == nil }

	// A nil journal takes everything.
	for what, open := range map[string]func() (*Journal, error){
		"no name":                         func() (*Journal, error) { return Open(t.Context(), "", false, listOf(t, "1"), agreed, nil) },
		"nothing there that can be read":  func() (*Journal, error) { return Open(t.Context(), name, true, listOf(t, "1"), agreed, nil) },
		"nothing there, and no directory": func() (*Journal, error) { return Open(t.Context(), name+"/x", true, listOf(t, "1"), agreed, nil) },
	} {
		j, err := open()
		err = errors.Join(err, j.Begin(Header{}), j.Write(revoked("1", "")), j.Outcomes(listOf(t, "1"), func(*revocation.Outcome) { t.Error("an outcome") }), j.Close())
		if j != nil || err != nil || j.Found() != (Found{}) || exists() {
			t.Errorf("%s: %v, %v", what, j, err)
		}
	}

	// A new journal that is never begun is removed.
	j, err := Open(t.Context(), name, false, listOf(t, "1"), agreed, nil)
	if err != nil || !exists() {
		t.Fatal(err)
	}
	if j.Found() != (Found{}) {
		t.Errorf("found %+v", j.Found())
	}
	if err := j.Close(); err != nil || exists() {
		t.Errorf("closed: %v", err)
	}

	// So it is with one that cannot be used; one that was there is kept.
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(interrupted, name, false, listOf(t, "1"), agreed, nil); !errors.Is(err, problem.ErrInterrupted) || exists() {
		t.Errorf("interrupted: %v", err)
	}
	fill(t, name, listOf(t, "1", "2"), revoked("1", ""))
	other := problem.New("another CA")
	if _, err := Open(t.Context(), name, false, listOf(t, "1"), func(h *Header) error { return other }, nil); !errors.Is(err, other) || !exists() {
		t.Errorf("no agreement: %v", err)
	}

	// One that is only read stays as it is.
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	list := listOf(t, "1", "2")
	if j, err = Open(t.Context(), name, true, list, agreed, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = errors.Join(j.Begin(Header{}), j.Write(revoked("2", "")), j.Outcomes(list, func(*revocation.Outcome) { n++ }), j.Close())
	after, readErr := os.ReadFile(name)
	if err != nil || readErr != nil || n != 1 || j.Found().Done != 1 || !bytes.Equal(before, after) {
		t.Errorf("read only: %v, %v, %d outcomes, found %+v", err, readErr, n, j.Found())
	}

	// A directory that is not there is no place for a journal.
	if _, err := Open(t.Context(), filepath.Join(dir, "missing", "journal"), false, list, agreed, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
