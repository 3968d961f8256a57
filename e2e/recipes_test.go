//go:build unix

package e2e

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v2"
)

var placeholder = regexp.MustCompile(`\$\{\{ (vars|secrets)\.(\w+) \}\}`)

func cmdJob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: job FILE")
	}
	type step struct {
		Run string
		Env map[string]string
	}
	var file struct {
		Jobs   map[string]struct{ Steps []step } // GitHub
		Revoke struct {                          // GitLab
			Variables map[string]string
			Script    []string
		}
	}
	ts.Check(yaml.Unmarshal([]byte(ts.ReadFile(args[0])), &file))
	steps := file.Jobs["revoke"].Steps
	if file.Revoke.Script != nil {
		steps = []step{{strings.Join(file.Revoke.Script, "\n"), file.Revoke.Variables}}
	}
	n := 0
	for _, s := range steps {
		if s.Run == "" {
			continue
		}
		var script strings.Builder
		for _, name := range slices.Sorted(maps.Keys(s.Env)) {
			value := placeholder.ReplaceAllStringFunc(s.Env[name], func(p string) string {
				match := placeholder.FindStringSubmatch(p)
				if match[1] == "secrets" {
					return strings.TrimSpace(ts.ReadFile(ts.Getenv(match[2])))
				}
				return ts.Getenv(match[2])
			})
			fmt.Fprintf(&script, "export %s=%s\n", name, shellQuote(value))
		}
		n++
		ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("step%d.sh", n)), []byte(script.String()+s.Run), 0o600))
	}
	if n == 0 {
		ts.Fatalf("the job has no steps")
	}
}

func cmdPublished(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: published")
	}
	env, err := publish()
	ts.Check(err)
	for name, value := range env {
		ts.Setenv(name, value)
	}
	ts.Setenv("PATH", env["GOBIN"]+":"+ts.Getenv("PATH"))
}

// publish makes a module proxy out of the working tree, and a module cache that
// shares all other modules with the one in use. It returns the environment for go
// install. Its flags are those of make build, so that the packages are compiled
// already.
var publish = sync.OnceValues(func() (map[string]string, error) {
	const module, version = "github.com/step-plugins/step-revoke-plugin", "v0.0.1"
	dir := filepath.Join(sharedDir, "published")
	proxy := filepath.Join(dir, "proxy", module, "@v")
	if err := os.MkdirAll(proxy, 0o700); err != nil {
		return nil, err
	}
	goMod, err := os.ReadFile("../go.mod")
	if err != nil {
		return nil, err
	}
	info, err := json.Marshal(map[string]string{"Version": version, "Time": "2026-01-01T00:00:00Z"})
	if err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{"list": []byte(version + "\n"), version + ".info": info, version + ".mod": goMod} {
		if err := os.WriteFile(filepath.Join(proxy, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	if err := zipModule(filepath.Join(proxy, version+".zip"), module+"@"+version); err != nil {
		return nil, err
	}
	out, err := exec.Command("go", "env", "-json", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, err
	}
	modules, cache := env["GOMODCACHE"], filepath.Join(dir, "mod")
	for _, deep := range []string{".", "github.com", "cache", "cache/download", "cache/download/github.com"} {
		if err := linkAll(filepath.Join(modules, deep), filepath.Join(cache, deep)); err != nil {
			return nil, err
		}
	}
	env["GOMODCACHE"], env["GOBIN"] = cache, filepath.Join(dir, "go", "bin")
	env["GOPROXY"], env["GOSUMDB"] = "file://"+filepath.Join(dir, "proxy")+",file://"+filepath.Join(modules, "cache", "download"), "off"
	env["GOFLAGS"], env["CGO_ENABLED"] = "-trimpath -buildvcs=false -modcacherw", "0"
	return env, nil
})

// linkAll fills a directory with links to everything in another one, but for
// the directories on the way to this module.
func linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(to, 0o700)}
	for _, e := range entries {
		switch e.Name() {
		case "cache", "download", "lock", "github.com", "step-plugins":
		default:
			errs = append(errs, os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// zipModule makes a module's archive of the files that the program is built of.
func zipModule(file, prefix string) error {
	root := os.DirFS("..")
	files := []string{"go.mod", "go.sum", "LICENSE"}
	for _, pattern := range []string{"*.go", "internal/*/*.go"} {
		sources, err := fs.Glob(root, pattern)
		if err != nil {
			return err
		}
		files = append(files, sources...)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	for _, name := range files {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		w, err := z.Create(prefix + "/" + name)
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return z.Close()
}

// shellQuote makes a value one word of a shell script.
func shellQuote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
