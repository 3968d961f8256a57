//go:build unix

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// A block is a block of code in a document.
type block struct {
	file, title string // title is that of the section
	number      int    // in its section, from 1 on
	language    string
	text        string
}

func (b block) String() string { return fmt.Sprintf("%s '%s' %d", b.file, b.title, b.number) }

// blocks returns the blocks of code in a document of the repository, and the text of
// each section by its title.
func blocks(file string) (list []block, sections map[string]string) {
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		panic(err)
	}
	sections = map[string]string{}
	title, number, inside := "", 0, false
	for line := range strings.Lines(string(text)) {
		language, fence := strings.CutPrefix(line, "```")
		switch _, heading, isHeading := strings.Cut(line, "# "); {
		case fence && !inside:
			number++
			list = append(list, block{file: file, title: title, number: number, language: strings.TrimSpace(language)})
		case inside && !fence:
			list[len(list)-1].text += line
		case isHeading && strings.HasPrefix(line, "#"):
			title, number = strings.TrimSpace(heading), 0
		}
		if fence {
			inside = !inside
		}
		sections[title] += line
	}
	return list, sections
}

// section returns the text of a section, its title included.
func section(file, title string) string {
	_, sections := blocks(file)
	return sections[title]
}

func cmdBlock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: block DOCUMENT TITLE NUMBER FILE")
	}
	list, _ := blocks(args[0])
	i := slices.IndexFunc(list, func(b block) bool { return b.title == args[1] && strconv.Itoa(b.number) == args[2] })
	if i < 0 {
		ts.Fatalf("%s has no such block of code", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(list[i].text), 0o600))
}

// unrun are the blocks of code that no session runs, with the reason.
var unrun = map[string]string{}

// TestDocuments makes sure that a session runs each block of code in the documents.
func TestDocuments(t *testing.T) {
	t.Parallel()
	run := map[string]bool{}
	uses := regexp.MustCompile(`(?m)^(?:\[[^]]*\] )?block (\S+) ('[^\n]*'|\S+) ([0-9]+) \S+$`)
	scripts, err := fs.Glob(os.DirFS("testdata"), "*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(filepath.Join("testdata", script))
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range uses.FindAllStringSubmatch(string(text), -1) {
			title := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(use[2], "'"), "'"), "''", "'")
			run[fmt.Sprintf("%s '%s' %s", use[1], title, use[3])] = true
		}
	}
	unused := map[string]bool{}
	for name := range unrun {
		unused[name] = true
	}
	for _, document := range documents(t) {
		list, _ := blocks(document)
		for _, b := range list {
			delete(unused, b.String())
			switch why := unrun[b.String()]; {
			case run[b.String()] && why != "":
				t.Errorf("%s is run, although %s", b, why)
			case !run[b.String()] && why == "" && b.language != "mermaid": // which is a figure
				t.Errorf("no session runs %s:\n%s", b, b.text)
			}
		}
	}
	for name := range unused {
		t.Errorf("there is no %s", name)
	}
}

// TestLinks makes sure that the links between documents lead somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	unfit := regexp.MustCompile(`[^\pL\pN_ -]`)
	for _, document := range documents(t) {
		_, sections := blocks(document)
		for title, text := range sections {
			for _, to := range link.FindAllStringSubmatch(text, -1) {
				file := document
				if to[1] != "" {
					file = filepath.Join(filepath.Dir(document), to[1])
				}
				if _, err := os.Stat(filepath.Join("..", file)); err != nil {
					t.Errorf("%s '%s': %v", document, title, err)
					continue
				}
				_, there := blocks(file)
				found := to[2] == ""
				for name := range there { // as GitHub makes anchors of titles
					found = found || strings.ReplaceAll(unfit.ReplaceAllString(strings.ToLower(name), ""), " ", "-") == to[2]
				}
				if !found {
					t.Errorf("%s '%s': %s has no section #%s", document, title, file, to[2])
				}
			}
		}
	}
}

// documents returns the names of all documents.
func documents(t *testing.T) []string {
	names, err := fs.Glob(os.DirFS(".."), "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(names, "README.md", "CONTRIBUTING.md", "SECURITY.md")
}
