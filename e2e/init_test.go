//go:build unix

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// templateAddress is the address in a template; no CA ever listens there.
const templateAddress = "127.0.0.1:1"

// A template is a CA that scripts start from, because step ca init takes a
// second. Two scripts may have copies of one, but a script never has two.
type template struct {
	dir, fingerprint, kid string
}

var templates = struct {
	sync.Mutex
	made map[string]*template
}{made: map[string]*template{}}

func getTemplate(name string, o initOptions) (*template, error) {
	templates.Lock()
	defer templates.Unlock()
	key := name
	var flags []string
	if o.remote {
		key, flags = key+"-remote", append(flags, "--remote-management")
	}
	if o.ssh {
		key, flags = key+"-ssh", append(flags, "--ssh")
	}
	if t := templates.made[key]; t != nil {
		return t, nil
	}
	t, err := newTemplate(filepath.Join(sharedDir, key), flags...)
	if err == nil {
		templates.made[key] = t
	}
	return t, err
}

func newTemplate(dir string, flags ...string) (*template, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	password, provisionerPassword := filepath.Join(dir, "password"), filepath.Join(dir, "provisioner-password")
	for _, file := range []string{password, provisionerPassword} {
		if err := os.WriteFile(file, []byte(rand.Text()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	bin, err := tools()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(bin, "step"), "ca", "init", "--name", filepath.Base(dir),
		"--dns", "127.0.0.1", "--address", templateAddress, "--provisioner", "admin",
		"--password-file", password, "--provisioner-password-file", provisionerPassword)
	cmd.Args = append(cmd.Args, flags...)
	cmd.Env = []string{"HOME=" + dir, "STEPPATH=" + dir, "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("step ca init: %w\n%s", err, out)
	}
	var defaults struct{ Fingerprint string }
	if err := readJSON(filepath.Join(dir, "config", "defaults.json"), &defaults); err != nil {
		return nil, err
	}
	var config struct {
		Authority struct {
			Provisioners []struct {
				Key          struct{ Kid string }
				EncryptedKey string
			}
		}
	}
	if err := readJSON(filepath.Join(dir, "config", "ca.json"), &config); err != nil {
		return nil, err
	}
	t := &template{dir: dir, fingerprint: defaults.Fingerprint}
	if p := config.Authority.Provisioners; len(p) > 0 {
		t.kid = p[0].Key.Kid
		cmd := exec.Command(filepath.Join(bin, "step"), "crypto", "jwe", "decrypt", "--password-file", provisionerPassword)
		cmd.Stdin = strings.NewReader(p[0].EncryptedKey)
		key, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("step crypto jwe decrypt: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "provisioner-key"), key, 0o600); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// copyTemplate makes the CA's directory out of a template.
func (ca *scriptCA) copyTemplate(o initOptions) (*template, error) {
	t, err := getTemplate(ca.name, o)
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(ca.dir, os.DirFS(t.dir)); err != nil {
		return nil, err
	}
	for _, secret := range []string{"password", "provisioner-password", "provisioner-key"} { // CopyFS does not keep the mode
		if err := os.Chmod(filepath.Join(ca.dir, secret), 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return t, ca.configure(t.dir, ca.dir)
}

// register makes the directory of a registration authority. Its CA must be
// running: step ca init asks that for the root certificate.
func (ca *scriptCA) register() (*template, error) {
	return newTemplate(ca.dir, "--ra=StepCAS", "--deployment-type", "standalone", "--issuer", "https://"+ca.issuer.address,
		"--issuer-fingerprint", ca.issuer.fingerprint, "--issuer-provisioner", "admin")
}

// initOptions are those of ca init. An empty string is an option that is not
// given.
type initOptions struct {
	crl, remote, ssh, stock bool
	db, ra, version         string
}

func parseInit(args []string) (o initOptions, err error) {
	for _, arg := range args {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "crl":
			o.crl = true
		case "remote":
			o.remote = true
		case "ssh":
			o.ssh = true
		case "stock":
			o.stock = true
		case "db":
			o.db = value
		case "ra":
			o.ra = value
		case "version":
			o.version = value
		default:
			return o, fmt.Errorf("ca init: unknown option %q", arg)
		}
	}
	return o, nil
}

// init makes the CA's directory.
func (ca *scriptCA) init(ts *testscript.TestScript, args []string) error {
	o, err := parseInit(args)
	if err != nil {
		return err
	}
	var t *template
	if ca.version = o.version; o.ra != "" {
		ca.issuer = ts.Value(scriptKey{}).(*script).cas[o.ra]
		t, err = ca.register()
	} else {
		t, err = ca.copyTemplate(o)
	}
	if err != nil {
		return err
	}
	ca.address, ca.fingerprint = templateAddress, t.fingerprint
	if err := ca.change(func(config map[string]any) error {
		if o.crl {
			config["crl"] = map[string]any{"enabled": true, "generateOnRevoke": true}
		}
		return setDatabase(ts, ca, config, o.db)
	}); err != nil {
		return err
	}
	ts.Setenv(ca.name+"_fingerprint", t.fingerprint)
	ts.Setenv(ca.name+"_kid", t.kid)
	if err := ca.moveTo(ts, freeAddress()); err != nil || !o.stock {
		return err
	}
	s, err := theStock()
	if err != nil {
		return err
	}
	return s.fill(ts, ca)
}

// change changes the CA's ca.json.
func (ca *scriptCA) change(change func(config map[string]any) error) error {
	file := filepath.Join(ca.dir, "config", "ca.json")
	var config map[string]any
	if err := readJSON(file, &config); err != nil {
		return err
	}
	if err := change(config); err != nil {
		return err
	}
	b, err := json.MarshalIndent(config, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// setDatabase sets the member db of ca.json for an option of ca init.
func setDatabase(ts *testscript.TestScript, ca *scriptCA, config map[string]any, kind string) (err error) {
	switch kind {
	case "":
	case "none":
		delete(config, "db")
	case "bbolt":
		config["db"] = map[string]any{"type": kind, "dataSource": filepath.Join(ca.dir, "bbolt.db")}
	case "badger":
		config["db"] = map[string]any{"type": kind, "dataSource": filepath.Join(ca.dir, "badger-v1")}
	default:
		config["db"], err = newDatabase(ts, kind)
	}
	return err
}

// newDatabase creates a database on a server, because no test is about how
// step-ca does that, and returns the member db of ca.json.
func newDatabase(ts *testscript.TestScript, kind string) (map[string]any, error) {
	s := servers[kind]
	if s == nil {
		return nil, fmt.Errorf("ca init: unknown database %q", kind)
	}
	s.once.Do(func() { s.err = s.start() })
	if s.err != nil {
		return nil, s.err
	}
	// An upper-case letter and a dash, which must be quoted everywhere.
	name := fmt.Sprintf("stepCA-%d", s.made.Add(1))
	quoted, existing := "\""+name+"\"", "postgres"
	if kind == "mysql" {
		quoted, existing = "`"+name+"`", "mysql"
	}
	if _, err := s.exec(kind, existing, "CREATE DATABASE "+quoted); err != nil {
		return nil, err
	}
	ts.Setenv("database", name)
	ts.Setenv("database_address", s.address)
	ts.Setenv("database_password", s.password)
	if kind == "mysql" { // the two ways of naming a database
		return map[string]any{"type": kind, "dataSource": s.source(s, ""), "database": name}, nil
	}
	return map[string]any{"type": kind, "dataSource": s.source(s, name)}, nil
}

func cmdAmend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: amend FILE")
	}
	var changes map[string]any
	ts.Check(json.Unmarshal([]byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), &changes))
	ts.Check(current(ts).change(func(config map[string]any) error {
		amended(config, changes)
		return nil
	}))
}

// amended merges a change into a JSON value.
func amended(old, change any) any {
	switch change := change.(type) {
	case map[string]any:
		object, ok := old.(map[string]any)
		if !ok {
			return change
		}
		for name, value := range change {
			if value == nil {
				delete(object, name)
			} else {
				object[name] = amended(object[name], value)
			}
		}
		return object
	case []any:
		array, _ := old.([]any)
		return append(array, change...)
	}
	return change
}
