package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// listOf returns a list of serial numbers in decimal.
func listOf(t *testing.T, serials ...string) *target.List {
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
	j, err := Open(t.Context(), name, false, list, agreed)
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
	j, err := Open(t.Context(), name, false, list, agreed)
	if err != nil {
		t.Fatal(err)
	}
	found := j.Found()
	if found.Done != 2 || found.Since != time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) || !found.OtherTargets || found.Header == nil ||
		*found.Header != (Header{Journal: 1, CA: "https://ca", Root: "f00", Targets: 4, TargetsDigest: listOf(t, "4", "3", "2", "1").Digest()}) {
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

// TestCutAnywhere cuts a journal off after every byte, goes on with what is
// left, and finds the same targets done in the end.
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
	for n := range len(whole) + 1 {
		lines := bytes.Count(whole[:n], []byte("\n"))
		if err := os.WriteFile(name, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		list := listOf(t, serials...)
		j, err := Open(t.Context(), name, false, list, agreed)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if found := j.Found(); found.Done != max(0, lines-1) || (found.Header != nil) != (lines > 0) || found.OtherTargets {
			t.Fatalf("%d bytes: found %+v", n, found)
		}
		if got := doneIn(list); !slices.Equal(got, serials[:max(0, lines-1)]) {
			t.Fatalf("%d bytes: done are %v", n, got)
		}
		if err := j.Begin(Header{CA: "https://ca", Root: "f00", Targets: 3, TargetsDigest: list.Digest()}); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		for i, target := range list.All {
			if !target.Done {
				if err := j.Write(revoked(serials[i], "2026-01-02T03:04:0"+string(rune('5'+i))+"Z")); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
		}
		if err := j.Close(); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, whole) {
			t.Fatalf("%d bytes: %v, the journal is now\n%s", n, err, got)
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
		{"a spoilt line", string(header) + "\nspoilt\n", "NAME, line 2 is not that of a journal", AnotherHint},
		{"a line of zeros", string(header) + "\n\x00\x00\n", "NAME, line 2 is not that of a journal", AnotherHint},
		{"a long line", string(header) + "\n" + strings.Repeat(" ", maxLine+1), "reading the journal: a line has more than 1048576 bytes", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), name, false, listOf(t, "1"), agreed)
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
		"no name":                         func() (*Journal, error) { return Open(t.Context(), "", false, listOf(t, "1"), agreed) },
		"nothing there that can be read":  func() (*Journal, error) { return Open(t.Context(), name, true, listOf(t, "1"), agreed) },
		"nothing there, and no directory": func() (*Journal, error) { return Open(t.Context(), name+"/x", true, listOf(t, "1"), agreed) },
	} {
		j, err := open()
		err = errors.Join(err, j.Begin(Header{}), j.Write(revoked("1", "")), j.Outcomes(listOf(t, "1"), func(*revocation.Outcome) { t.Error("an outcome") }), j.Close())
		if j != nil || err != nil || j.Found() != (Found{}) || exists() {
			t.Errorf("%s: %v, %v", what, j, err)
		}
	}

	// A new journal that is never begun is removed.
	j, err := Open(t.Context(), name, false, listOf(t, "1"), agreed)
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
	if _, err := Open(interrupted, name, false, listOf(t, "1"), agreed); !errors.Is(err, problem.ErrInterrupted) || exists() {
		t.Errorf("interrupted: %v", err)
	}
	fill(t, name, listOf(t, "1", "2"), revoked("1", ""))
	other := problem.New("another CA")
	if _, err := Open(t.Context(), name, false, listOf(t, "1"), func(h *Header) error { return other }); !errors.Is(err, other) || !exists() {
		t.Errorf("no agreement: %v", err)
	}

	// One that is only read stays as it is.
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	list := listOf(t, "1", "2")
	if j, err = Open(t.Context(), name, true, list, agreed); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = errors.Join(j.Begin(Header{}), j.Write(revoked("2", "")), j.Outcomes(list, func(*revocation.Outcome) { n++ }), j.Close())
	after, readErr := os.ReadFile(name)
	if err != nil || readErr != nil || n != 1 || j.Found().Done != 1 || !bytes.Equal(before, after) {
		t.Errorf("read only: %v, %v, %d outcomes, found %+v", err, readErr, n, j.Found())
	}

	// A directory that is not there is no place for a journal.
	if _, err := Open(t.Context(), filepath.Join(dir, "missing", "journal"), false, list, agreed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
