//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// suppressions are for the race detector: one goroutine of these libraries draws
// prompts while another one reads the keys.
const suppressions = "race:github.com/manifoldco/promptui\nrace:github.com/chzyer/readline\n"

// released builds the plugin with the flags of make build, which have compiled
// its packages already, and returns the directory it is in.
var released = sync.OnceValues(func() (string, error) {
	return build("released", "0", "-trimpath", "-ldflags=-s -w")
})

// raced builds the plugin with the race detector, as go test -race compiles its
// packages. Where that does not work, unless $CI is set, it is the released one.
var raced = sync.OnceValues(func() (string, error) {
	detector := exec.Command("go", "build", "-race", "runtime/cgo")
	detector.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := detector.CombinedOutput(); err != nil && os.Getenv("CI") != "" {
		return "", fmt.Errorf("CI must have the race detector: %w\n%s", err, out)
	} else if err != nil {
		return released()
	}
	return build("raced", "1", "-race")
})

func build(kind, cgo string, flags ...string) (dir string, err error) {
	dir = filepath.Join(sharedDir, kind)
	cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(dir, "step-revoke-plugin")}, flags...)...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	return dir, nil
}

// tools returns a directory with the real step and step-ca. The variables STEP and
// STEP_CA name programs, or versions that tools/VERSION/go.mod pins; otherwise
// they are those that tools/go.mod pins.
var tools = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(sharedDir, "tools")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for name, variable := range map[string]string{"step": "STEP", "step-ca": "STEP_CA"} {
		var path string
		var err error
		switch value := os.Getenv(variable); {
		case value == "":
			path, err = toolPath("tools/go.mod", name)
		case isVersion(value):
			path, err = toolPath(filepath.Join("tools", value, "go.mod"), name)
		default:
			path, err = filepath.Abs(value)
		}
		if err != nil {
			return "", err
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// isVersion tells whether a text is a version like v0.30.2.
func isVersion(s string) bool {
	return strings.HasPrefix(s, "v") && version.IsValid("go"+s[1:])
}

// isAtLeast tells whether a version, v0.30.2 for instance, is 0.30 or later. What is
// no version is the newest.
func isAtLeast(v, least string) bool {
	return !isVersion(v) || version.Compare("go"+v[1:], "go"+least) >= 0
}

// building keeps two scripts from building the same tool at the same time.
var building sync.Mutex

// toolPath returns the path of a tool that a module file pins. It builds the
// tool, which takes minutes, if Go's build cache has none.
func toolPath(modfile, name string) (string, error) {
	building.Lock()
	defer building.Unlock()
	cmd := exec.Command("go", "tool", "-modfile="+modfile, "-n", name)
	cmd.Dir = ".."
	// Flags for building the plugin, like -mod or -race, do not fit the tools.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}
