package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/authorize"
	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// options are what the command line, the environment and step's configuration
// ask for: one small value for each station of a run. Everything in them that
// can be checked without the CA is, and nothing writes into them afterwards.
type options struct {
	targets      target.Sources
	query        target.Query // of the CA's database; else targets
	max          int          // targets at most; 0: any number
	reason       revocation.Reason
	reasonGiven  bool // on the command line; else a plan may bring one
	online       online.Config
	offline      *offline.Config   // nil: the CA is online
	configFile   string            // the CA's ca.json
	settings     *offline.Settings // what it says; nil where nobody needs that
	proof        authorize.Config
	batch        batch.Config
	journal      string
	force        bool
	allowUnknown bool
	dryRun       bool
	verify       bool
	json         bool
}

// looksOnly tells whether the run only looks at the present state. That changes
// nothing and takes no authorization.
func (o *options) looksOnly() bool { return o.dryRun && o.verify }

// timeout is how long one request may take.
func (o *options) timeout() time.Duration {
	if o.offline != nil {
		return o.offline.Timeout
	}
	return o.online.Timeout
}

// caName names the CA: by its URL, or by its configuration file.
func (o *options) caName() string {
	if o.offline == nil {
		return o.online.URL.String()
	}
	name := o.offline.File
	if full, err := filepath.Abs(name); err == nil {
		name = full // a journal or a plan may be used from another directory
	}
	return strings.ToValidUTF8(name, "\uFFFD") // as JSON has it
}

// initStep reads step's environment: its directory, the contexts, and the
// defaults of the context in force. Without a home directory nothing is read:
// step's paths would be relative to the working directory, whose files are not
// to be trusted.
func initStep() error {
	if !filepath.IsAbs(homeDir()) {
		nowhere := os.Getenv(step.PathEnv)
		if !filepath.IsAbs(nowhere) {
			nowhere = filepath.Join(filepath.VolumeName(os.TempDir())+string(filepath.Separator), "nonexistent")
			os.Setenv(step.PathEnv, nowhere)
		}
		os.Setenv(step.HomeEnv, nowhere)
	}
	if err := step.Init(); err != nil {
		return problem.New("reading step's environment in %s: %w", step.BasePath(), err).
			Hint("%s names another directory for it, which may be empty", step.PathEnv)
	}
	return nil
}

// homeDir is the home directory as step.Init sees it.
func homeDir() string {
	if home := os.Getenv(step.HomeEnv); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// useContext puts the named context in force. Without a name it is the current
// one, the only one, or the one that the user chooses.
func useContext(ctx context.Context, name string) error {
	contexts := step.Contexts()
	var names []string
	for _, c := range contexts.ListAlphabetical() {
		names = append(names, c.Name)
	}
	switch {
	case name != "":
		if !slices.Contains(names, name) {
			known := "none"
			if len(names) > 0 {
				known = strings.Join(names, ", ")
			}
			return problem.New("there is no context %q", name).Hint("contexts are: %s", known)
		}
	case contexts.GetCurrent() != nil || len(names) == 0:
		return nil
	case len(names) == 1:
		name = names[0]
		ui.Selected("Context", name)
	default:
		i, err := ui.AskChoice(ctx, "--context", "Context", "Which context do you want to use?", names)
		if err != nil {
			return err
		}
		name = names[i]
	}
	if err := contexts.SetCurrent(name); err != nil {
		return problem.New("reading the context %q: %w", name, err)
	}
	return nil
}

// readOptions turns flags into options. What stands on the command line itself
// (on) goes before what is inherited.
func readOptions(ctx context.Context, c *cli.Context, on given) (*options, error) {
	if err := checkFlags(c, on); err != nil {
		return nil, err
	}
	o := &options{
		targets: target.Sources{
			Serials: c.Args(), Certs: c.StringSlice("cert"), From: c.StringSlice("from"),
			AllowSmall: c.Bool("allow-unknown"), Exists: exists,
		},
		reasonGiven:  on.any("reason", "reasonCode"),
		journal:      c.String("journal"),
		force:        c.Bool("force"),
		allowUnknown: c.Bool("allow-unknown"),
		dryRun:       c.Bool("dry-run"),
		verify:       c.Bool("verify"),
	}
	var err error
	if o.reason, err = parseReason(c.String("reasonCode")); err != nil {
		return nil, err
	}
	if o.reason.Text, err = parseReasonText(c.String("reason")); err != nil {
		return nil, err
	}
	if o.json, err = wantsJSON(c.String("format")); err != nil {
		return nil, err
	}
	if o.max = c.Int("max"); o.max < 0 || o.max == 0 && c.IsSet("max") {
		return nil, problem.New("--max %d is not a number of certificates", o.max)
	}
	if terms := c.StringSlice("where"); len(terms) > 0 {
		if o.query, err = target.ParseQuery(ctx, terms, c.String("key-password-file"), time.Now()); err != nil {
			return nil, err
		}
	}
	if o.batch, err = readPush(c); err != nil {
		return nil, err
	}
	o.batch.InProcess = isOffline(c, on)
	byHost := isOffline(c, on) && !choosesProof(on)
	if !byHost {
		if o.proof, err = readWho(c, on); err != nil {
			return nil, err
		}
	}
	if err := o.checkRelease(o.reason); err != nil { // before anybody is asked for anything
		return nil, err
	}
	if o.configFile = c.String("ca-config"); o.configFile == "" {
		o.configFile = step.CaConfigFile()
	}
	if !isOffline(c, on) {
		if err := o.findOnline(ctx, c, on); err != nil || !o.query.IsSet() {
			return o, err
		}
		return o, o.findDatabase()
	}
	if err = o.findOffline(c); err == nil && byHost {
		o.proof.Host = thisHost() + " (the CA's database) [" + strings.ToLower(o.settings.CA.DB.Type) + "]"
		o.offline.ByHost = true
	}
	return o, err
}

// choosesProof tells whether the command line or a variable says who is to
// authorize. defaults.json does not count, because it has a provisioner for step's
// other commands, and neither does a password that is only inherited.
func choosesProof(on given) bool {
	proofs := []string{"key", "provisioner", "kid", "provisioner-key", "x5c-cert"}
	return on["provisioner-password-file"] || on.any(proofs...) ||
		slices.ContainsFunc(proofs[1:], func(name string) bool { return os.Getenv(variableOf(name)) != "" })
}

// thisUser returns the name of who runs this, and of who called that through sudo,
// or an empty string.
func thisUser() (name, caller string) {
	name = strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if caller = os.Getenv("SUDO_USER"); caller == name {
		caller = ""
	}
	return name, fmt.Sprintf("%.64s", strings.ToValidUTF8(caller, "\uFFFD"))
}

// thisHost says who runs this, and where.
func thisHost() string {
	name, caller := thisUser()
	if caller != "" {
		name += " (sudo by " + caller + ")"
	}
	host, _ := os.Hostname()
	return name + " on " + host
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// isOffline tells whether the CA is opened in this process. An inherited
// --offline gives way to what makes sense online only.
func isOffline(c *cli.Context, on given) bool {
	return c.Bool("offline") && !on.any("token", "token-file", "ca-url", "root", "fingerprint")
}

func wantsJSON(format string) (bool, error) {
	switch format {
	case "json":
		return true, nil
	case "text":
		return false, nil
	}
	return false, problem.New("there is no format %q", format).Hint("--format is text or json")
}

// maxConcurrency is more than any CA bears.
const maxConcurrency = 1000

// readPush reads how hard to push.
func readPush(c *cli.Context) (batch.Config, error) {
	b := batch.Config{Concurrency: c.Int("concurrency"), Rate: c.Int("rate"), RetryFor: c.Duration("retry-for")}
	switch timeout := c.Duration("timeout"); {
	case timeout <= 0:
		return b, problem.New("--timeout %s is too short", timeout)
	case b.RetryFor < 0:
		return b, problem.New("--retry-for %s is negative", b.RetryFor)
	case c.IsSet("concurrency") && (b.Concurrency < 1 || b.Concurrency > maxConcurrency):
		return b, problem.New("--concurrency %d is not between 1 and %d", b.Concurrency, maxConcurrency)
	case b.Rate < 0 || b.Rate == 0 && c.IsSet("rate"):
		return b, problem.New("--rate %d is not a number of revocations per second", b.Rate).Hint("without --rate there is no limit")
	}
	return b, nil
}

// readWho reads who is to authorize, but for a token. Proof on the command line
// overrides inherited proof of another kind.
func readWho(c *cli.Context, on given) (authorize.Config, error) {
	who := authorize.Config{
		Key: input.KeyFile{
			File: c.String("key"), PasswordFile: c.String("key-password-file"),
			Flag: "--key", PasswordFlag: "--key-password-file", CertFlag: "--cert",
		},
		Cert:        strings.Join(c.StringSlice("cert"), ""),
		Provisioner: c.String("provisioner"), KID: c.String("kid"),
		KeyFile: c.String("provisioner-key"), PasswordFile: c.String("provisioner-password-file"),
	}
	if cert := c.String("x5c-cert"); cert != "" && !on.any("key", "token", "token-file", "kid", "provisioner-key") {
		if c.String("x5c-key") == "" {
			return who, problem.New("--x5c-key is missing, the key of the certificate %s", cert)
		}
		who.X5C = authorize.X5C{Cert: cert, Chain: c.StringSlice("x5c-chain"), Key: input.KeyFile{
			File: c.String("x5c-key"), PasswordFile: who.PasswordFile,
			Flag: "--x5c-key", PasswordFlag: "--provisioner-password-file", CertFlag: "--x5c-cert",
		}}
	}
	if on["x5c-cert"] && !on["provisioner"] {
		who.Provisioner = ""
	}
	if who.Key.File == "" {
		return who, nil
	}
	const hint = "leave out --key to revoke several with a provisioner"
	if n := len(c.StringSlice("cert")); n > 1 {
		return who, problem.New("--key goes with one --cert, not with %d", n).Hint(hint)
	}
	if c.NArg() > 0 || len(c.StringSlice("from")) > 0 {
		return who, problem.New("--key goes with the certificate in --cert alone, not with serial numbers").Hint(hint)
	}
	return who, nil
}

// findOffline reads the configuration of the CA that is opened in this process.
func (o *options) findOffline(c *cli.Context) (err error) {
	o.offline = &offline.Config{
		File: o.configFile, PasswordFile: c.String("ca-password-file"),
		AllowUnknown: o.allowUnknown, Known: o.query.IsSet(), LookOnly: o.looksOnly(), Force: o.force, Timeout: c.Duration("timeout"),
	}
	ui.Selected("CA", "offline, "+o.offline.File)
	o.settings, err = offline.ReadSettings(o.offline.File)
	return err
}

// findDatabase reads the configuration of the CA whose database is read while it
// runs.
func (o *options) findDatabase() (err error) {
	if o.settings, err = offline.ReadSettings(o.configFile); err == nil {
		return o.checkDatabase()
	}
	wrapped := problem.Wrap(err, "--where needs the CA's database")
	if !exists(o.configFile) {
		return wrapped.Hint("run it on the CA's host")
	}
	return wrapped
}

// findOnline finds out which CA is meant, and reads the token, if one is to
// authorize, because it may name the CA.
func (o *options) findOnline(ctx context.Context, c *cli.Context, on given) (err error) {
	o.online = online.Config{
		Timeout: c.Duration("timeout"), RetryFor: o.batch.RetryFor, Concurrency: o.batch.Concurrency,
		UserAgent: "step-revoke-plugin/" + programVersion(),
	}
	needed := !o.looksOnly() || on.any("token", "token-file")
	if needed && !on.any("cert", "provisioner", "kid", "provisioner-key", "provisioner-password-file", "x5c-cert") {
		raw, file := c.String("token"), c.String("token-file")
		if on["token-file"] {
			raw = ""
		} else if raw != "" {
			file = ""
		}
		if o.proof.Token, err = authorize.ReadToken(ctx, raw, file); err != nil {
			return err
		}
	}
	t, err := findTrust(c, on)
	if err != nil {
		return err
	}
	return o.findCA(ctx, t)
}
