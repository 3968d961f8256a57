package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/step-plugins/step-revoke-plugin"

// arrows are all our packages with those of ours that each may import. They run
// one way, from a station to what it stands on: a new one is a decision.
var arrows = map[string]string{
	".":                   "authorize batch database input journal offline online problem revocation target ui",
	"internal/problem":    "",
	"internal/ui":         "problem",
	"internal/database":   "problem",
	"internal/input":      "problem ui",
	"internal/target":     "problem input",
	"internal/revocation": "problem target",
	"internal/authorize":  "problem ui input target",
	"internal/online":     "problem ui target revocation",
	"internal/offline":    "problem ui input target revocation database",
	"internal/batch":      "problem target revocation",
	"internal/journal":    "problem target revocation",
	"e2e":                 "",
	"e2e/picture":         "",
}

// walls are packages of others with those of ours that may import them, and
// their subpackages.
var walls = map[string]string{
	"net/http":                                    "online offline", // offline for its status codes alone
	"github.com/smallstep/certificates/ca":        "",               // it reads without bounds
	"github.com/smallstep/certificates/authority": "offline authorize online",
	"github.com/smallstep/certificates/db":        "offline database",
	"github.com/smallstep/nosql":                  "offline database",
	"github.com/dgraph-io":                        "database",
	"go.etcd.io/bbolt":                            "database",
	"github.com/jackc/pgx/v5":                     "database",
	"github.com/go-sql-driver/mysql":              "database",
	"github.com/smallstep/cli-utils/ui":           "ui",
	"github.com/smallstep/cli-utils/step":         ".",
	"github.com/smallstep/cli-utils/token":        "authorize",
	"github.com/manifoldco/promptui":              "ui",
	"github.com/chzyer/readline":                  "ui",
	"github.com/cheggaaa/pb/v3":                   "ui",
	"github.com/dustin/go-humanize":               "ui target",
	"golang.org/x/crypto":                         "revocation target",
	"golang.org/x/net/idna":                       "target",
	"golang.org/x/term":                           "ui",
	"golang.org/x/text":                           "problem target",
	"golang.org/x/time/rate":                      "batch",
	"github.com/cenkalti/backoff/v5":              "batch online",
	"github.com/urfave/cli":                       ".",
	"github.com/agnivade/levenshtein":             ". target",
	"go.step.sm/crypto/jose":                      "authorize",
	"go.step.sm/crypto/kms":                       "offline",
}

func TestImports(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-f", `{{.ImportPath}}:{{join .Imports " "}}`, "./...")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		name := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		if name == "" {
			name = "."
		}
		allowed, known := arrows[name]
		if !known {
			t.Errorf("the package %s is not in the table", name)
		}
		for _, imported := range strings.Fields(imports) {
			if ours, ok := strings.CutPrefix(imported, module+"/internal/"); ok && !contains(allowed, ours) {
				t.Errorf("%s imports %s", name, ours)
			}
			for wall, who := range walls {
				if (imported == wall || strings.HasPrefix(imported, wall+"/")) && !contains(who, strings.TrimPrefix(name, "internal/")) {
					t.Errorf("%s imports %s", name, imported)
				}
			}
		}
	}
}

// TestBlackBox makes sure that the sessions know the program from outside only.
func TestBlackBox(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{join .TestImports " "}} {{join .XTestImports " "}}`, "-tags", "bench", "./e2e").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, imported := range strings.Fields(string(out)) {
		if strings.HasPrefix(imported, module) {
			t.Errorf("e2e imports %s", imported)
		}
	}
}

func contains(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

// TestInstall makes sure that go install takes the module: it refuses one that replaces
// or excludes others (go help install).
func TestInstall(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if word := regexp.MustCompile(`(?m)^(replace|exclude)\b`).Find(text); word != nil {
		t.Errorf("go.mod has %q", word)
	}
}
