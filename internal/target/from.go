package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sort"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Notes are what was noticed in one of Sources.From.
type Notes struct {
	Name     string   // of the file or the directory, as messages call it
	Files    int      // how many files of a directory were read; 0 for a file
	Read     int      // how many certificates it names, repetitions included
	Repeated int      // how many of these were named before
	LeftOut  []string // certificates of CAs, a line for a person each
}

// readFrom adds what one --from names.
func (l *List) readFrom(ctx context.Context, s Sources, from string) (Notes, error) {
	r := newReader(l, s, from)
	// There is little but the list itself in memory, and no pointer in it:
	// collecting often costs nothing, and saves half of the memory.
	before := debug.SetGCPercent(20)
	defer debug.SetGCPercent(before)
	if err := input.Await(ctx, func() error { return r.readAll(from) }); err != nil {
		return Notes{}, err
	}
	for _, ca := range r.leftOut {
		r.notes.LeftOut = append(r.notes.LeftOut, ca.String())
	}
	if r.notes.Read == 0 {
		return r.notes, r.nothing(r.notes.Name)
	}
	return r.notes, nil
}

// readAll reads a file, or the PEM files of a directory. Between the certificates of
// a directory there may be files with keys, or with certificates of CAs, alone.
func (r *reader) readAll(from string) error {
	info, err := os.Stat(from)
	if from == "-" || err != nil || !info.IsDir() {
		return r.open(from) // which says what is wrong with it
	}
	files, err := pemFiles(from)
	if err != nil {
		return err
	}
	for _, name := range files {
		r.file = file{name: name, onlyPEM: true}
		if err := r.open(name); err != nil {
			return err
		}
		if !r.named && r.otherPEM == "" {
			return r.nothing(name)
		}
	}
	r.notes.Files = len(files)
	return nil
}

// maxEntries bounds how many files a directory may have.
const maxEntries = 100_000

// pemSuffixes are those of PEM files with certificates.
var pemSuffixes = []string{".pem", ".crt", ".cer", ".cert"}

// pemFiles returns the PEM files of a directory, but not those of its
// subdirectories, in the order of their names.
func pemFiles(dir string) (files []string, err error) {
	opened, err := os.Open(dir)
	if err != nil {
		return nil, problem.New("reading what to revoke: %w", err)
	}
	defer opened.Close()
	entries, err := opened.ReadDir(maxEntries + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, problem.New("reading what to revoke: %w", err)
	case len(entries) > maxEntries:
		return nil, problem.New("the directory %s has more than %d files", dir, maxEntries)
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if !slices.Contains(pemSuffixes, strings.ToLower(filepath.Ext(name))) {
			continue
		}
		// A link that leads nowhere is an error when it is opened.
		if info, err := os.Stat(name); err != nil || info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		return nil, problem.New("the directory %s holds no PEM file", dir).
			Hint("in a directory --from reads *%s, without its subdirectories", strings.Join(pemSuffixes, ", *"))
	}
	slices.Sort(files)
	return files, nil
}

// A part is the targets that a file has added to a list: from the first one to the
// first one of the next part.
type part struct {
	first int // in List.All
	file  string
}

// begin notes that the targets that come now are from lines of a file.
func (l *List) begin(file string) { l.parts = append(l.parts, part{first: len(l.All), file: file}) }

// Where tells which line of which file of Sources.From has named the target at an
// index of All: "serials.txt, line 7". It is empty for a target that was named
// elsewhere.
func (l *List) Where(i int) string {
	p := sort.Search(len(l.parts), func(p int) bool { return l.parts[p].first > i }) - 1
	if p < 0 || i-l.parts[0].first >= len(l.lines) {
		return ""
	}
	return fmt.Sprintf("%s, line %d", l.parts[p].file, l.lines[i-l.parts[0].first])
}
