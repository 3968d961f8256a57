//go:build unix

package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// tooLong is how long a test waits for another process before it fails. Even a
// loaded machine stays far below it.
const tooLong = time.Minute

// programs are what scripts can run besides step, step-ca and the plugin.
var programs = map[string]func(){
	"at-terminal": terminalMain,
	"peak":        peakMain,
	"systemctl":   systemctlMain,
	"upon":        uponMain,
	"within":      withinMain,
}

func TestMain(m *testing.M) { testscript.Main(suite{m}, programs) }

// A suite runs the tests of the package, with a directory for what they share.
type suite struct{ *testing.M }

// sharedDir holds the plugin, the tools and the CA templates of this test process.
var sharedDir string

func (s suite) Run() int {
	// Scripts wait more than they compute. Flags of go test are parsed after this.
	_ = flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
	leaveTerminal()
	defer stopServers()
	var err error
	if sharedDir, err = os.MkdirTemp("", "step-revoke-test"); err == nil {
		defer os.RemoveAll(sharedDir)
		err = os.WriteFile(filepath.Join(sharedDir, "suppressions"), []byte(suppressions), 0o600)
	}
	if err == nil {
		_, err = released()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer printSlowest()
	return s.M.Run()
}

// took is how long each script has run, without the wait for its turn. Of the
// tests in Go that is with the wait of their parallel subtests.
var took = struct {
	sync.Mutex
	scripts map[string]time.Duration
}{scripts: map[string]time.Duration{}}

// printSlowest shows where the time goes, if more than a few scripts have run.
func printSlowest() {
	const most = 10
	if len(took.scripts) <= most {
		return
	}
	slowest := slices.SortedFunc(maps.Keys(took.scripts), func(a, b string) int {
		return cmp.Compare(took.scripts[b], took.scripts[a])
	})
	fmt.Printf("the %d slowest of %d scripts:\n", most, len(slowest))
	for _, name := range slowest[:most] {
		fmt.Printf("%7.1f s %s\n", took.scripts[name].Seconds(), name)
	}
}

// leaveTerminal gives up the controlling terminal, so that a script that must
// find none does not find that of the person who runs the tests. The process
// stays in its group: Ctrl-C still ends it.
func leaveTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	// The kernel sends SIGHUP to a session leader that does this.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	_ = unix.IoctlSetInt(int(tty.Fd()), unix.TIOCNOTTY, 0)
}

// TestScripts runs the sessions in testdata/script, all of them in parallel.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scriptParams("testdata/script"))
}

// TestMass runs the scripts in testdata/mass, with the race detector. Their batches
// keep all processors busy, so they run before the scripts that measure time.
func TestMass(t *testing.T) {
	params := scriptParams("testdata/mass")
	params.Setup = func(env *testscript.Env) error { return setupWith(env, raced) }
	testscript.Run(t, params)
}

// TestMemory runs the scripts in testdata/memory.
func TestMemory(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/memory"))
}

// scriptParams returns the environment and the commands of scripts.
func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:   dir,
		Setup: setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ca":           cmdCA,
			"issue":        cmdIssue,
			"refused":      cmdRefused,
			"renews":       cmdRenews,
			"crl":          cmdCRL,
			"recorded":     cmdRecorded,
			"all-recorded": cmdAllRecorded,
			"all-listed":   cmdAllListed,
			"memory":       cmdMemory,
			"snapshot":     cmdSnapshot,
			"unchanged":    cmdUnchanged,
			"exits":        cmdExits,
			"objects":      cmdObjects,
			"expired":      cmdExpired,
			"forged":       cmdForged,

			"archive": cmdArchive,
			"block":   cmdBlock,
			"image":   cmdImage,
			"job":     cmdJob,
			"parts":   cmdParts,
			"pod":     cmdPod,
			"systemd": cmdSystemd,

			"amend":      cmdAmend,
			"contacted":  cmdContacted,
			"crl-check":  cmdCRLCheck,
			"crl-frame":  cmdCRLFrame,
			"crl-number": cmdCRLNumber,
			"foreign":    cmdForeign,
			"give":       cmdGive,
			"listen":     cmdListen,
			"query":      cmdQuery,

			"killed":    cmdKilled,
			"journaled": cmdJournaled,
			"lines":     cmdLines,
			"serials":   cmdSerials,

			"answers":       cmdAnswers,
			"cut-short":     cmdCutShort,
			"loaded":        cmdLoaded,
			"only-recorded": cmdOnlyRecorded,
			"only-refused":  cmdOnlyRefused,
			"put":           cmdPut,

			"await":  cmdAwait,
			"faults": cmdFaults,
			"full":   cmdFull,
			"proxy":  cmdProxy,
			"relay":  cmdRelay,
			"serve":  cmdServe,
		},
		Condition:          condition,
		RequireUniqueNames: true,
	}
}

// setupScript gives a script the plugin as it is released, or, if its name is
// fault-…, with the race detector.
func setupScript(env *testscript.Env) error {
	if strings.HasPrefix(filepath.Base(env.WorkDir), "script-fault-") {
		return setupWith(env, raced)
	}
	return setupWith(env, released)
}

func setupWith(env *testscript.Env, plugin func() (dir string, err error)) error {
	bin, err := tools()
	if err != nil {
		return err
	}
	dir, err := plugin()
	if err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("STEPPATH", filepath.Join(env.WorkDir, "ca"))
	env.Setenv("PATH", bin+":"+dir+":"+env.Getenv("PATH"))
	env.Setenv("tools", bin)
	env.Setenv("plugin", filepath.Join(dir, "step-revoke-plugin"))
	// By default a process with the race detector sleeps a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0 suppressions="+filepath.Join(sharedDir, "suppressions"))
	s := &script{
		env: []string{"HOME=" + home, "PATH=" + env.Getenv("PATH"), "TMPDIR=" + env.Getenv("TMPDIR")},
		dir: env.WorkDir,
		cas: map[string]*scriptCA{},
		t:   env.T(),

		faulty: map[string]*faulty{},
	}
	s.use("ca")
	env.Values[scriptKey{}] = s
	env.Defer(s.end)
	if t, ok := s.t.(interface{ Name() string }); ok {
		start := time.Now()
		env.Defer(func() {
			took.Lock()
			defer took.Unlock()
			took.scripts[t.Name()] = time.Since(start)
		})
	}
	return nil
}

type scriptKey struct{}

// A script is the state of one running script.
type script struct {
	dir string   // $WORK
	env []string // of step-ca and of the harness' own calls of step
	cas map[string]*scriptCA
	ca  *scriptCA // the one in use
	t   testscript.T

	faulty map[string]*faulty // proxies and relays
}

func current(ts *testscript.TestScript) *scriptCA {
	return ts.Value(scriptKey{}).(*script).ca
}

func (s *script) use(name string) {
	if s.cas[name] == nil {
		dir := filepath.Join(s.dir, name)
		s.cas[name] = &scriptCA{
			name: name, dir: dir, env: append(slices.Clip(s.env), "STEPPATH="+dir),
			renewals: make(chan string, 100),
		}
	}
	s.ca = s.cas[name]
}

// end stops the CAs of a script, and shows the end of their logs if it failed.
func (s *script) end() {
	for _, ca := range s.cas {
		if t, ok := s.t.(interface{ Failed() bool }); ok && t.Failed() {
			ca.showLog(s.t)
		}
		if err := ca.stop(); err != nil {
			s.t.Log(err)
		}
	}
}

func condition(name string) (bool, error) {
	var err error
	if least, ok := strings.CutPrefix(name, "step-ca:"); ok {
		return isAtLeast(os.Getenv("STEP_CA"), least), nil
	}
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "sudo":
		_, err = exec.LookPath("sudo")
		return err == nil, nil
	case "tmpfs":
		err = exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt").Run()
	case "netns":
		err = exec.Command("sh", "-c", withoutNetwork, "sh", "true").Run()
	case "postgresql", "mysql":
		_, err = servers[name].program()
	default:
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if err != nil && os.Getenv("CI") != "" {
		return false, fmt.Errorf("CI must have %s: %w", name, err)
	}
	return err == nil, nil
}

// withoutNetwork is a shell script that runs its arguments in a network
// namespace that has no interface that is up.
const withoutNetwork = `if [ "$(id -u)" = 0 ]; then exec unshare -n "$@"; else exec unshare -rn "$@"; fi`
