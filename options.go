package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/pki"
	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/x509util"
)

// options are what the command line, the environment and step's configuration
// ask for, with everything checked that can be checked without the CA.
type options struct {
	serials         []string
	certFiles       []string
	clientChain     []*x509.Certificate // what the last of them holds
	from            string
	keyFile         string
	keyPasswordFile string
	reason          string
	reasonCode      reason
	reasonGiven     bool // on the command line, or by a plan in from

	token                   *givenToken // --token or --token-file
	provisioner             string
	kid                     string
	provisionerPasswordFile string
	provisionerPassword     []byte // what that file holds, or nil
	provisionerKey          string
	signingKey              *jose.JSONWebKey // of --provisioner-key or --x5c-key, or nil
	x5cCert, x5cKey         string
	x5cChain                []string
	x5cCerts                []*x509.Certificate // of these files, the leaf first
	x5cEncoded              []string            // the same, as a token carries them

	offline        bool
	caConfig       string
	ca             *config.Config // what that file holds
	caPasswordFile string

	caURL       *url.URL
	roots       []*x509.Certificate // whom to trust, or
	fingerprint string              // SHA-256 of the root, lower-case hexadecimal

	force        bool
	allowUnknown bool
	dryRun       bool
	verify       bool

	json             bool // --format json
	journal          string
	concurrency      int // revocations in flight
	concurrencyGiven bool
	rate             int           // revocations per second; 0 is no bound
	timeout          time.Duration // for one request
	retryFor         time.Duration // for one certificate; 0 is not at all
}

// How many revocations are in flight unless told otherwise, as measured: step-ca
// with a database in files would gain a fifth from 128, but one on PostgreSQL
// runs out of connections at 100. Offline, package nosql keeps two
// connections to a database server open, and makes a new one for whatever comes
// at the same time: on PostgreSQL 2 are 13 times as fast as 64. Badger writes what
// has come in meanwhile in one go: 256 are 1.3 times as fast as 64, and 512 still
// somewhat faster.
const (
	defaultConcurrency = 64
	serverConcurrency  = 2
	filesConcurrency   = 512
	maxConcurrency     = 1000
)

// looks tells whether the run only looks at the present state, which changes
// nothing and takes no authorization.
func (o *options) looks() bool { return o.dryRun && o.verify }

// caName names the CA: by its URL, or by its configuration file.
func (o *options) caName() string {
	if o.offline {
		if full, err := filepath.Abs(o.caConfig); err == nil {
			return full // a journal or a plan may be used from elsewhere
		}
		return o.caConfig
	}
	return o.caURL.String()
}

// checkDefaults finds values in defaults.json that their flags cannot take:
// cli-utils passes over them in silence.
func checkDefaults(c *cli.Context) error {
	defaults, err := step.Contexts().GetConfig()
	if err != nil {
		return err
	}
	for _, f := range allFlags() {
		name, _, _ := strings.Cut(f.GetName(), ",")
		value, ok := defaults[name]
		if !ok || c.IsSet(name) {
			continue
		}
		text := fmt.Sprint(value)
		switch f := f.(type) {
		case cli.BoolFlag:
			if f.EnvVar != commandLineOnly {
				_, err = strconv.ParseBool(text)
			}
		case cli.DurationFlag:
			_, err = time.ParseDuration(text)
		case cli.IntFlag:
			_, err = strconv.Atoi(text)
		}
		if err != nil {
			return usagef("%q is no value for %q in defaults.json of %s", text, name, step.Path())
		}
	}
	return nil
}

// readOptions turns flags into options. given are the flags that stand on the
// command line itself; what they ask for goes before what is inherited. All
// errors are usage errors.
func readOptions(ctx context.Context, c *cli.Context, given map[string]bool) (*options, error) {
	if !c.Bool("offline") {
		delete(given, "offline")
	}
	if err := checkFlags(c, given); err != nil {
		return nil, err
	}
	o := &options{
		serials:                 c.Args(),
		certFiles:               c.StringSlice("cert"),
		from:                    c.String("from"),
		keyFile:                 c.String("key"),
		keyPasswordFile:         c.String("key-password-file"),
		reason:                  c.String("reason"),
		provisioner:             c.String("provisioner"),
		kid:                     c.String("kid"),
		provisionerPasswordFile: c.String("provisioner-password-file"),
		provisionerKey:          c.String("provisioner-key"),
		x5cCert:                 c.String("x5c-cert"),
		x5cKey:                  c.String("x5c-key"),
		x5cChain:                c.StringSlice("x5c-chain"),
		offline:                 c.Bool("offline") && !isAny(given, "token", "token-file", "ca-url", "root", "fingerprint"),
		caConfig:                c.String("ca-config"),
		caPasswordFile:          c.String("ca-password-file"),
		force:                   c.Bool("force"),
		allowUnknown:            c.Bool("allow-unknown"),
		dryRun:                  c.Bool("dry-run"),
		verify:                  c.Bool("verify"),
		reasonGiven:             isAny(given, "reason", "reasonCode"),
		journal:                 c.String("journal"),
		concurrency:             defaultConcurrency,
		rate:                    c.Int("rate"),
		timeout:                 c.Duration("timeout"),
		retryFor:                c.Duration("retry-for"),
	}
	// What is inherited gives way to other proof on the command line.
	if isAny(given, "key", "token", "token-file", "kid", "provisioner-key") {
		o.x5cCert = ""
	}
	if given["x5c-cert"] && !given["provisioner"] {
		o.provisioner = ""
	}
	err := o.check(c)
	if err != nil {
		return nil, err
	}
	if o.offline {
		if o.caConfig == "" {
			o.caConfig = step.CaConfigFile()
		}
		return o, nil
	}
	needless := o.looks() && !isAny(given, "token", "token-file")
	if !needless && !isAny(given, "cert", "provisioner", "kid", "provisioner-key", "provisioner-password-file", "x5c-cert") {
		if o.token, err = readToken(ctx, c.String("token"), c.String("token-file"), given); err != nil {
			return nil, err
		}
	}
	return o, o.findCA(ctx, c, given)
}

// check finds values that are wrong or do not go together, and reads the reason
// code and the format.
func (o *options) check(c *cli.Context) (err error) {
	switch format := c.String("format"); format {
	case "json":
		o.json = true
	case "text":
	default:
		return usagef("there is no format %q", format).hint("--format is text or json")
	}
	if o.timeout <= 0 {
		return usagef("--timeout %s is too short", o.timeout)
	}
	if o.retryFor < 0 {
		return usagef("--retry-for %s is negative", o.retryFor)
	}
	if c.IsSet("concurrency") {
		o.concurrency, o.concurrencyGiven = c.Int("concurrency"), true
	}
	if o.concurrency < 1 || o.concurrency > maxConcurrency {
		return usagef("--concurrency %d is not between 1 and %d", o.concurrency, maxConcurrency)
	}
	if o.rate < 0 || o.rate == 0 && c.IsSet("rate") {
		return usagef("--rate %d is not a number of revocations per second", o.rate).hint("without --rate there is no bound")
	}
	if o.x5cCert != "" && o.x5cKey == "" {
		return usagef("--x5c-key is missing, the key of the certificate %s", o.x5cCert)
	}
	switch {
	case o.keyFile != "" && len(o.certFiles) > 1:
		return usagef("--key goes with one --cert, not with %d", len(o.certFiles)).
			hint("leave out --key to revoke several with a provisioner")
	case o.keyFile != "" && (len(o.serials) > 0 || o.from != ""):
		return usagef("--key goes with the certificate in --cert alone, not with serial numbers").
			hint("leave out --key to revoke several with a provisioner")
	}
	if o.dryRun {
		o.concurrency = 1 // in order
	}
	o.reasonCode, err = parseReason(c.String("reasonCode"))
	return err
}

// findCA finds out which CA is meant and how to trust it. What stands on the
// command line displaces what is inherited from the environment or from
// defaults.json; a token's own address and fingerprint stand in between.
func (o *options) findCA(ctx context.Context, c *cli.Context, given map[string]bool) error {
	address, rootFile, fingerprint := c.String("ca-url"), c.String("root"), c.String("fingerprint")
	defaultRoot := pki.GetRootCAPath()
	if given["root"] || given["fingerprint"] {
		rootFile, fingerprint = onlyIf(given["root"], rootFile), onlyIf(given["fingerprint"], fingerprint)
		defaultRoot = ""
	} else if given["ca-url"] && isOtherCA(address, inherited("ca-url")) {
		rootFile, fingerprint, defaultRoot = "", "", ""
	}
	if t := o.token; t != nil && t.url != nil {
		switch {
		case given["ca-url"] && !sameHost(address, t.url):
			return usagef("the token is for the CA at %s, not for %s", t.url.Host, address).
				hint("the host in --ca-url must be the one in the token")
		case address == "" || !sameHost(address, t.url) || !given["ca-url"] && t.url.Port() != "" && isOtherCA(address, t.url.String()):
			address, rootFile, defaultRoot = t.url.String(), onlyIf(given["root"], rootFile), ""
			fingerprint = onlyIf(given["fingerprint"], fingerprint)
		}
	}
	if address == "" {
		return usagef("--ca-url is missing").hint("name the CA with --ca-url, or run 'step ca bootstrap' once")
	}
	var err error
	if o.caURL, err = parseURL(address); err != nil {
		return err
	}
	if rootFile == "" && fingerprint == "" && defaultRoot != "" {
		if _, err := os.Stat(defaultRoot); err == nil {
			rootFile = defaultRoot
		}
	}
	return o.findRoots(ctx, rootFile, fingerprint, given)
}

// findRoots settles whom to trust: the certificates in a file, or a root with
// a fingerprint, which may be the one in the token.
func (o *options) findRoots(ctx context.Context, rootFile, fingerprint string, given map[string]bool) (err error) {
	if fingerprint != "" {
		if o.fingerprint, err = parseFingerprint(fingerprint); err != nil {
			return err
		}
	}
	if rootFile != "" {
		if o.roots, err = readBundle(ctx, rootFile, "--root"); err != nil {
			return err
		}
	}
	if given["root"] && given["fingerprint"] {
		if !hasFingerprint(o.roots, o.fingerprint) {
			return usagef("no certificate in %s has the fingerprint %s", rootFile, o.fingerprint).
				hint("--root and --fingerprint must agree; one of them is enough")
		}
		o.roots = slices.DeleteFunc(o.roots, func(c *x509.Certificate) bool { return x509util.Fingerprint(c) != o.fingerprint })
	}
	if t := o.token; t != nil && t.sha != "" {
		switch {
		case given["fingerprint"] && o.fingerprint != t.sha:
			return usagef("the token's root fingerprint %s differs from --fingerprint", t.sha).
				hint("is the token for another CA? without --fingerprint the token's own counts")
		case given["root"] && !hasFingerprint(o.roots, t.sha):
			return usagef("no certificate in %s has the token's root fingerprint %s", rootFile, t.sha).
				hint("is the token for another CA? without --root the token's own fingerprint counts")
		case !hasFingerprint(o.roots, t.sha):
			o.roots, o.fingerprint = nil, t.sha
		}
	}
	if o.roots == nil && o.fingerprint == "" {
		return usagef("there is no root certificate to trust %s with", o.caURL).
			hint("use --root FILE or --fingerprint HEX")
	}
	return nil
}

// inherited is the value of a flag apart from the command line.
func inherited(name string) string {
	if v, ok := os.LookupEnv(variableOf(name)); ok {
		return v
	}
	config, err := step.Contexts().GetConfig()
	if err != nil {
		return ""
	}
	v, _ := config[name].(string)
	return v
}

// variableOf is the environment variable of a flag, by cli-utils' rules
// (step.SetEnvVar).
func variableOf(name string) string {
	return "STEP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// isOtherCA tells whether an address is another one than the inherited one.
func isOtherCA(address, inherited string) bool {
	a, errA := parseURL(address)
	b, errB := parseURL(inherited)
	return errA == nil && errB == nil && a.String() != b.String()
}

// sameHost tells whether an address has the host of u. Ports do not count, as
// they do not for step-ca (authority/config, Config.GetAudiences).
func sameHost(address string, u *url.URL) bool {
	a, err := parseURL(address)
	return err == nil && a.Hostname() == strings.ToLower(u.Hostname())
}

// parseURL reads the address of a CA: an HTTPS URL, or a host with or without
// a port. The host is brought into lower case, as step-ca compares it, and a
// path is dropped.
func parseURL(s string) (*url.URL, error) {
	full := s
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "":
		// What stands before an @ may be a password.
		return nil, usagef("%q is not the URL of a CA", s[strings.LastIndex(s, "@")+1:]).hint("write https://HOST:PORT")
	case !strings.EqualFold(u.Scheme, "https"):
		return nil, usagef("%s is not an HTTPS URL", u.Redacted()).hint("step-ca serves HTTPS: write https://%s", u.Host)
	case u.User != nil:
		return nil, usagef("%s holds a user name", u.Redacted()).hint("write https://%s", u.Host)
	}
	host := strings.ToLower(u.Host)
	if u.Port() == "443" {
		host = strings.TrimSuffix(host, ":443")
	}
	return &url.URL{Scheme: "https", Host: strings.TrimSuffix(host, ":")}, nil
}

// parseFingerprint reads a SHA-256 fingerprint: hexadecimal, in either case,
// with or without colons.
func parseFingerprint(s string) (string, error) {
	sum := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
		return "", usagef("%q is not a SHA-256 fingerprint", clip(s, 100)).
			hint("'step certificate fingerprint root_ca.crt' prints it: 64 hexadecimal digits")
	}
	return sum, nil
}

func hasFingerprint(certs []*x509.Certificate, sum string) bool {
	return slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return x509util.Fingerprint(c) == sum })
}

// onlyIf returns s if the condition holds.
func onlyIf(condition bool, s string) string {
	if condition {
		return s
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
			return usagef("there is no context %q", name).hint("contexts are: %s", listOf(names))
		}
	case contexts.GetCurrent() != nil || len(names) == 0:
		return nil
	case len(names) == 1:
		name = names[0]
		saySelected("Context", name)
	default:
		i, err := askChoice(ctx, "--context", "Context", "Which context do you want to use?", names)
		if err != nil {
			return err
		}
		name = names[i]
	}
	if err := contexts.SetCurrent(name); err != nil {
		return usagef("reading the context %q: %w", name, err)
	}
	return nil
}

// listOf joins names for a hint.
func listOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
