package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

var fuzzed = []string{"4660", "4661", "4662", "308893286343609293989051180431574390766"}

// loaded reads what a journal says of the serial numbers in fuzzed.
func loaded(t *testing.T, file *os.File, data []byte) (j *Journal, done []string, err error) {
	t.Helper()
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	j, list := &Journal{file: file}, listOf(t, fuzzed...)
	err = j.load(t.Context(), list, agreed)
	if done = doneIn(list); err == nil && len(done) != j.found.Done {
		t.Errorf("%d are done, and %d are counted", len(done), j.found.Done)
	}
	return j, done, err
}

// recorded are the targets of which whole lines say that they are done.
func recorded(data []byte) (done []string) {
	for line := range bytes.Lines(data) {
		var o revocation.Object
		if !bytes.HasSuffix(line, []byte("\n")) || target.ReadObject(line, &o) != nil || !o.Status.Done() {
			continue
		}
		if serial, err := target.ParseSerial(o.Serial); err == nil {
			done = append(done, serial.String())
		}
	}
	return done
}

// FuzzJournal reads any file as a journal, whole and cut. No target is done of
// which it does not say so, and where a line ends that counts a line ends.
func FuzzJournal(f *testing.F) {
	const header = `{"journal":1,"ca":"https://ca","targetsDigest":"x"}` + "\n"
	const lines = header + `{"serial":"4660","status":"revoked","time":"2026-01-02T03:04:05Z"}` + "\n" + `{"serial":"4661","status":"failed"}` + "\n" + `{"serial":"4661","status":"already-revoked"}` + "\n"
	for _, data := range []string{lines, header, lines[:len(lines)-9], lines + "\x00\x00\x00", lines + "\x00\x00\n" + `{"serial":"4662","status":"released"}` + "\n", "{\"jour", "\x00\n", `{"journal":2}` + "\n", header + header, header + "\n"} {
		f.Add([]byte(data), uint16(len(header)))
	}
	file := newFile(f)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		defer bounded()()
		for _, data := range [][]byte{data, data[:min(len(data), int(cut))]} {
			j, done, err := loaded(t, file, data)
			if err != nil {
				continue
			}
			for _, serial := range done {
				if !slices.Contains(recorded(data), serial) {
					t.Errorf("%q: %s is done", data, serial)
				}
			}
			if j.end > int64(len(data)) || j.end > 0 && data[j.end-1] != '\n' {
				t.Errorf("%q ends at %d", data, j.end)
			}
		}
	})
}

// FuzzResume writes a journal, cuts it at any byte, and goes on. Until then what
// whole lines say is done, and in the end all that was.
func FuzzResume(f *testing.F) {
	f.Add([]byte{0, 5, 10, 15, 3}, uint16(200))
	f.Add([]byte("whatever"), uint16(0))
	statuses := []revocation.Status{revocation.Revoked, revocation.AlreadyRevoked, revocation.Released, revocation.Failed, revocation.Unknown, revocation.NotAttempted}
	file := newFile(f)
	f.Fuzz(func(t *testing.T, script []byte, cut uint16) {
		defer bounded()()
		header, err := revocation.Line(&Header{Journal: version, CA: "https://ca", TargetsDigest: listOf(t, fuzzed...).Digest()})
		if err != nil {
			t.Fatal(err)
		}
		lines := [][]byte{header}
		for _, b := range script {
			o := revocation.Object{Serial: fuzzed[int(b)%len(fuzzed)], Status: statuses[int(b)/len(fuzzed)%len(statuses)], Time: "2026-01-02T03:04:05Z"}
			line, err := o.Line()
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		whole := bytes.Join(lines, nil)
		torn := whole[:int(cut)%(len(whole)+1)]
		j, done, err := loaded(t, file, torn)
		if err != nil || j.found.OtherTargets || j.found.Damaged > 0 || int(j.end) != bytes.LastIndexByte(torn, '\n')+1 {
			t.Fatalf("%q: %v, ends at %d, %+v", torn, err, j.end, j.found)
		}
		checkDone(t, torn, done)
		for _, line := range bytes.SplitAfter(whole[j.end:], []byte("\n")) {
			if err := j.append(line); err != nil {
				t.Fatal(err)
			}
		}
		mended, err := os.ReadFile(file.Name())
		if err != nil || !bytes.Equal(mended, whole) {
			t.Fatalf("%q became %q, %v", torn, mended, err)
		}
		_, done, err = loaded(t, file, mended)
		if err != nil {
			t.Fatal(err)
		}
		checkDone(t, mended, done)
	})
}

// checkDone makes sure that those are done, each once, of which the lines say so.
func checkDone(t *testing.T, data []byte, done []string) {
	t.Helper()
	want := recorded(data)
	slices.Sort(want)
	slices.Sort(done)
	if !slices.Equal(done, slices.Compact(want)) {
		t.Errorf("%q: done are %q, want %q", data, done, want)
	}
}

func newFile(f *testing.F) *os.File {
	f.Helper()
	file, err := os.Create(filepath.Join(f.TempDir(), "journal"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = file.Close() })
	return file
}
