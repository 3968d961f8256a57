package main

import (
	"context"
	"crypto/x509"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"
	"go.step.sm/crypto/x509util"
	"path/filepath"

	"github.com/step-plugins/step-revoke-plugin/internal/authorize"
	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/journal"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A trust says which CA is meant and whom to trust: the certificates in a file,
// a root certificate with a fingerprint, or both, which must agree.
type trust struct{ address, rootFile, fingerprint string }

// findTrust finds the one level that says whom to trust: the command line, else
// variables, else defaults.json, else the root file that step ca bootstrap
// writes. What stands below it does not count. The address comes from the
// highest level that has one: one CA often has several.
func findTrust(c *cli.Context, on given) (trust, error) {
	defaults, err := step.Contexts().GetConfig()
	if err != nil {
		return trust{}, err
	}
	levels := []func(name string) string{
		func(name string) string {
			if on[name] {
				return c.String(name)
			}
			return ""
		},
		func(name string) string { return os.Getenv(variableOf(name)) },
		func(name string) string { value, _ := defaults[name].(string); return value },
	}
	for _, value := range levels {
		t := trust{address: c.String("ca-url"), rootFile: value("root"), fingerprint: value("fingerprint")}
		if t.rootFile != "" || t.fingerprint != "" {
			return t, nil
		}
	}
	// Package pki of step-ca knows this path, too, but brings a megabyte along.
	t := trust{address: c.String("ca-url"), rootFile: filepath.Join(step.Path(), "certs", "root_ca.crt")}
	if !exists(t.rootFile) {
		t.rootFile = ""
	}
	return t, nil
}

// withToken completes a trust with what a token says. Nobody has verified the
// token: its address and its root fingerprint serve only where nothing at all is
// configured. Else a root in force must have that fingerprint.
func (t trust) withToken(token *authorize.Token) (_ trust, tokenRoot string, err error) {
	if token == nil || token.Root == "" {
		return t, "", nil
	}
	if tokenRoot, err = online.ParseFingerprint(token.Root); err != nil {
		return t, "", problem.New("the root fingerprint in the token is not a SHA-256 fingerprint").
			Hint("'step ca token SERIAL-NUMBER --revoke' makes a token with the right one")
	}
	u, err := online.ParseURL(token.Audience)
	if err != nil {
		return t, "", problem.Wrap(err, "the token's audience")
	}
	if t == (trust{}) {
		t.address, t.fingerprint = u.String(), tokenRoot
	}
	return t, tokenRoot, nil
}

// findCA settles which CA is meant and whom to trust.
func (o *options) findCA(ctx context.Context, t trust) error {
	t, tokenRoot, err := t.withToken(o.proof.Token)
	if err != nil {
		return err
	}
	if t.address == "" {
		err := problem.New("--ca-url is missing")
		if tokenRoot != "" {
			err = err.Hint("the address in the token counts only where no root is configured: nobody has verified it")
		}
		return err.Hint("name the CA with --ca-url, or run 'step ca bootstrap' once")
	}
	if o.online.URL, err = online.ParseURL(t.address); err != nil {
		return err
	}
	if t.rootFile == "" && t.fingerprint == "" {
		return problem.New("there is no root certificate to trust %s with", o.online.URL).
			Hint("use --root FILE or --fingerprint HEX")
	}
	if t.fingerprint != "" {
		if o.online.Fingerprint, err = online.ParseFingerprint(t.fingerprint); err != nil {
			return err
		}
	}
	if t.rootFile != "" {
		if o.online.Roots, err = readRoots(ctx, t.rootFile, o.online.Fingerprint); err != nil {
			return err
		}
	}
	if tokenRoot != "" && !slices.Contains(o.rootFingerprints(), tokenRoot) {
		err := problem.New("the token's root fingerprint %s is not that of the root certificate that is trusted", tokenRoot)
		if t.rootFile != "" {
			err = problem.New("no certificate in %s has the token's root fingerprint %s", t.rootFile, tokenRoot)
		}
		return err.Hint("is the token for another CA? --ca-url together with --root or --fingerprint names that")
	}
	return nil
}

// readRoots reads the root certificates in a file. If there is a fingerprint,
// only the certificate that has it counts.
func readRoots(ctx context.Context, file, fingerprint string) ([]*x509.Certificate, error) {
	roots, err := input.Certificates(ctx, file, "--root")
	if err != nil || fingerprint == "" {
		return roots, err
	}
	roots = slices.DeleteFunc(roots, func(c *x509.Certificate) bool { return x509util.Fingerprint(c) != fingerprint })
	if len(roots) == 0 {
		return nil, problem.New("no certificate in %s has the fingerprint %s", file, fingerprint).
			Hint("--root and --fingerprint must agree; one of them is enough")
	}
	return roots, nil
}

// rootFingerprints are those of the root certificates that are trusted.
func (o *options) rootFingerprints() (sums []string) {
	roots := o.online.Roots
	if o.offline != nil {
		roots = o.settings.Roots
	}
	if roots == nil {
		return []string{o.online.Fingerprint}
	}
	for _, root := range roots {
		sums = append(sums, x509util.Fingerprint(root))
	}
	return sums
}

// isCA tells whether a name, as caName makes it, is that of this run's CA.
func (o *options) isCA(name string) bool {
	if o.offline != nil {
		return name == o.caName()
	}
	u, err := online.ParseURL(name)
	return err == nil && u.String() == o.caName()
}

// isOurs tells whether what a line of our own JSON says of a CA is true of this
// run's. The root's fingerprint counts; only lines of an earlier version have none,
// and then the name does.
func (o *options) isOurs(name, root string) bool {
	if root != "" {
		return slices.Contains(o.rootFingerprints(), root)
	}
	return name == "" || o.isCA(name)
}

// planReason makes sure that a line of a plan is about this run's CA, and
// returns the reason of the run: that of the plan, unless the run has one
// already, which then must be the same.
func (o *options) planReason(c target.Claim, settled *revocation.Reason) (*revocation.Reason, error) {
	if !o.isOurs(c.CA, c.Root) && !o.allowUnknown {
		return nil, problem.New("%s is about another CA, %s", c.Where, c.CA).
			Hint("this run is about %s; --allow-unknown revokes it here anyway", o.caName())
	}
	if !c.Planned || c.ReasonCode == nil {
		return settled, nil
	}
	planned := revocation.Reason{Code: *c.ReasonCode, Name: reasonName(*c.ReasonCode), Text: c.Reason}
	if settled == nil {
		_, err := parseReason(strconv.Itoa(planned.Code))
		if err == nil {
			_, err = parseReasonText(planned.Text)
		}
		if err != nil {
			return nil, problem.Wrap(err, "%s", c.Where)
		}
		return &planned, nil
	}
	if planned != *settled {
		return nil, problem.New("%s was planned with the reason %s, and not with %s", c.Where, planned, *settled).
			Hint("one run has one reason; without --reason and --reasonCode it is that of the plan")
	}
	return settled, nil
}

// checkHeader makes sure that a journal is about the CA and the reason of this
// run.
func (o *options) checkHeader(h *journal.Header, reason revocation.Reason) error {
	var err *problem.Problem
	switch begun := (revocation.Reason{Code: h.ReasonCode, Name: reasonName(h.ReasonCode), Text: h.Reason}); {
	case !o.isOurs(h.CA, h.Root):
		err = problem.New("the journal %s is about another CA, %s, whose root certificate has the fingerprint %s", o.journal, h.CA, h.Root)
	case begun != reason:
		err = problem.New("the journal %s is about revocations with another reason, %s", o.journal, begun)
	default:
		return nil
	}
	return err.Hint(journal.AnotherHint)
}

// sameQuestion makes sure that a journal was begun with the query of this run, and
// returns that with durations counted back from when it was begun.
func (o *options) sameQuestion(h *journal.Header) (target.Query, error) {
	at, err := time.Parse(time.RFC3339, h.Time)
	if err == nil && slices.Equal(h.Where, o.query.Terms()) {
		return o.query.At(at), nil
	}
	question := strings.Join(h.Where, " --where ")
	if question == "" {
		return target.Query{}, problem.New("the journal %s was started without --where", o.journal).Hint(journal.AnotherHint)
	}
	return target.Query{}, problem.New("the journal %s was started for another query: --where %s", o.journal, question).Hint(journal.AnotherHint)
}

// checkDatabase makes sure that the database of --where is that of the CA which is
// to revoke.
func (o *options) checkDatabase() error {
	for _, root := range o.settings.Roots {
		if slices.Contains(o.rootFingerprints(), x509util.Fingerprint(root)) {
			return nil
		}
	}
	return problem.New("the CA in %s and %s have no root certificate in common", o.configFile, o.caName()).
		Hint("--where reads the database of the CA that revokes; --ca-config names its ca.json")
}
