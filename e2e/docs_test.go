//go:build unix

package e2e

import (
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
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
	if neg || len(args) < 4 {
		ts.Fatalf("usage: block DOCUMENT TITLE NUMBER FILE [OLD=>NEW...]")
	}
	list, _ := blocks(args[0])
	i := slices.IndexFunc(list, func(b block) bool { return b.title == args[1] && strconv.Itoa(b.number) == args[2] })
	if i < 0 {
		ts.Fatalf("%s has no such block of code", args[0])
	}
	text := list[i].text
	for _, change := range args[4:] {
		old, replacement, ok := strings.Cut(change, "=>")
		if !ok || !strings.Contains(text, old) {
			ts.Fatalf("%s has no %q to be replaced", list[i], old)
		}
		text = strings.ReplaceAll(text, old, replacement)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text), 0o600))
}

func cmdParts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: parts FILE N")
	}
	parts := strings.Split(ts.ReadFile(args[0]), "\n\n")
	if strconv.Itoa(len(parts)) != args[1] {
		ts.Fatalf("%s has %d parts, not %s", args[0], len(parts), args[1])
	}
	extension := filepath.Ext(args[0])
	for i, part := range parts {
		name := fmt.Sprintf("%s%d%s", strings.TrimSuffix(args[0], extension), i+1, extension)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(part), 0o600))
	}
}

// systemdURL names the variable with which the program systemctl finds its script.
const systemdURL = "SYSTEMD_URL"

func cmdSystemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: systemd")
	}
	ca := current(ts)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do := map[string]func() error{"/start step-ca": ca.start, "/stop step-ca": ca.stop}[r.URL.Path]
		if do == nil {
			http.NotFound(w, r)
		} else if err := do(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	ts.Defer(server.Close)
	ts.Setenv(systemdURL, server.URL)
}

// systemctlMain is the program systemctl. The CA is a child of the script's process,
// which stops and starts it.
func systemctlMain() {
	answer, err := http.Post(os.Getenv(systemdURL)+"/"+url.PathEscape(strings.Join(os.Args[1:], " ")), "", nil)
	if err != nil {
		refuse(err)
	}
	if answer.StatusCode != http.StatusOK {
		refuse(answer.Status)
	}
}

// unrun are the blocks of code that no session runs, with the reason.
var unrun = map[string]string{
	"CONTRIBUTING.md 'Build, test, measure' 1": "it is how the tests are run; TestCommands looks at it",
	"README.md 'Try it' 1":                     "it is how the tests are run; TestCommands looks at it",
	"docs/install.md 'From a clone' 1":         "it installs for all users; TestCommands looks at it",
	"docs/install.md 'Verify a download' 1":    "it needs a release",
	"docs/install.md 'Verify a download' 2":    "it needs a release",
	"docs/install.md 'Windows' 1":              "it needs Windows",
}

// documents returns the files of the documents.
func documents(t *testing.T) []string {
	list, err := fs.Glob(os.DirFS(".."), "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(list, "README.md", "CONTRIBUTING.md", "SECURITY.md")
}

// TestDocuments makes sure that a session runs each block of code in the documents.
func TestDocuments(t *testing.T) {
	t.Parallel()
	run := map[string]bool{}
	uses := regexp.MustCompile(`(?m)^(?:\[[^]]*\] )?block (\S+) ('(?:[^'\n]|'')*'|\S+) ([0-9]+) `)
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

// TestCommands makes sure that what the documents say about building and testing is
// there: the targets of make, and the tests, scripts and flags of go test.
func TestCommands(t *testing.T) {
	t.Parallel()
	commands := regexp.MustCompile("(?m)(?:^|`)((?:make [a-z]|go test |\\.ci/run)[^`\n]*)")
	seen := map[string]bool{}
	for _, document := range documents(t) {
		text, err := os.ReadFile(filepath.Join("..", document))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range commands.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(match[1])
			seen[words[0]] = true
			if err := checkCommand(words); err != nil {
				t.Errorf("%s: %s: %v", document, match[1], err)
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("the documents have only %v", seen)
	}
}

// checkCommand returns an error if the command that begins with these words has a
// target, test, script or flag that does not exist.
func checkCommand(words []string) error {
	switch words[0] {
	case ".ci/run":
		_, err := exec.LookPath("../.ci/run")
		return err
	case "make":
		return holds("../Makefile", "(?m)^"+words[1]+":")
	}
	for i, word := range words {
		name, isFlag := strings.CutPrefix(word, "-")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "C" && flag.Lookup(name) == nil && flag.Lookup("test."+name) == nil {
			return fmt.Errorf("there is no %s", word)
		}
		if word != "-run" {
			continue
		}
		test, script, isScript := strings.Cut(strings.Trim(words[i+1], "'$"), "/")
		if err := holds("*_test.go", "(?m)^func "+test+`\(`); err != nil {
			return err
		}
		if _, err := os.Stat("testdata/script/" + script + ".txtar"); isScript && err != nil {
			return err
		}
	}
	return nil
}

// holds returns an error unless a file with this name holds a match.
func holds(pattern, expression string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	re := regexp.MustCompile(expression)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if re.Match(text) {
			return nil
		}
	}
	return fmt.Errorf("no %s has %s", pattern, expression)
}
