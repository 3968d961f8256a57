package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"
)

// commandLineOnly marks the flags that name what is revoked and what guards
// it: a forgotten variable must not add a target or switch off a question.
const commandLineOnly = step.IgnoreEnvVar

// flagGroups are the flags of the command, in the order of its help. A word in
// angle brackets in the usage stands for the value.
var flagGroups = []struct {
	title string
	flags []cli.Flag
}{
	{"WHAT TO REVOKE", []cli.Flag{
		cli.StringSliceFlag{Name: "cert", EnvVar: commandLineOnly, Usage: `The certificate to revoke, a PEM <file>; its first certificate counts.
With --key it authorizes its own revocation. Without, a provisioner does,
and the flag may be repeated`},
		cli.StringFlag{Name: "from", EnvVar: commandLineOnly, Usage: `A <file> that names many certificates: serial numbers, one a line, or PEM
certificates, or the output of --format json, of a dry run for instance.
A dash (-) is standard input`},
		cli.StringFlag{Name: "key", EnvVar: commandLineOnly, Usage: `The private key of --cert, a PEM <file>`},
		cli.StringFlag{Name: "key-password-file", Usage: `A <file> with the password of --key, if it is encrypted`},
		cli.StringFlag{Name: "reason", EnvVar: commandLineOnly, Usage: `Why, in your own words: a <string> for the CA's records`},
		cli.StringFlag{Name: "reasonCode, reason-code", EnvVar: commandLineOnly, Usage: `Why, as a <code> of RFC 5280 or its name: see REASONS`},
		cli.BoolFlag{Name: "allow-unknown", EnvVar: commandLineOnly, Usage: `Revoke also what cannot be shown to be a certificate of this CA`},
		cli.BoolFlag{Name: "force, f", EnvVar: commandLineOnly, Usage: `Answer yes where a confirmation is asked for`},
	}},
	{"HOW", []cli.Flag{
		cli.BoolFlag{Name: "dry-run", EnvVar: commandLineOnly, Usage: `Do everything but revoke, and show what would be revoked`},
		cli.BoolFlag{Name: "verify", EnvVar: commandLineOnly, Usage: `Look afterwards whether the CA's CRL has it, offline in the database.
With --dry-run: look at the present state`},
		cli.StringFlag{Name: "journal", EnvVar: commandLineOnly, Usage: `A <file> that records every outcome. With one that is there, go on where
it ends`},
		cli.IntFlag{Name: "concurrency", Usage: fmt.Sprintf(`How many revocations may be in flight, a number (<n>); %d unless given,
offline %d, or %d with a database server`, defaultConcurrency, filesConcurrency, serverConcurrency)},
		cli.IntFlag{Name: "rate", Usage: `How many revocations to begin in a second at most, a number (<n>)`},
		cli.StringFlag{Name: "format", Value: "text", Usage: `What to print on standard output: text or json, a <format>. With json it
is one object for each certificate, a line each`},
		cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: `How long one request may take, a <duration>; 10s unless given`},
		cli.DurationFlag{Name: "retry-for", Value: 30 * time.Second, Usage: `How long to try again what fails for a passing reason, a <duration>;
30s unless given, 0s for never`},
	}},
	{"WHO AUTHORIZES IT", []cli.Flag{
		cli.StringFlag{Name: "provisioner, issuer", Usage: `The <name> of the provisioner; needed only where several fit`},
		cli.StringFlag{Name: "kid", Usage: `The key ID (<kid>) of the provisioner`},
		cli.StringFlag{Name: "provisioner-password-file, password-file", Usage: `A <file> with the password of the provisioner's key, of
--provisioner-key or of --x5c-key`},
		cli.StringFlag{Name: "provisioner-key", Usage: `A <file> with the provisioner's private key (JWK or PEM), for a CA that
does not hand it out`},
		cli.StringFlag{Name: "x5c-cert", Usage: `A certificate that an X5C provisioner trusts, a PEM <file>; it may hold the
chain too`},
		cli.StringFlag{Name: "x5c-key", Usage: `The private key of --x5c-cert, a PEM <file>`},
		cli.StringSliceFlag{Name: "x5c-chain", Usage: `A PEM <file> with more of the chain of --x5c-cert; may be repeated`},
		cli.StringFlag{Name: "token", Usage: `A one-time <token> for the serial number, as made by step ca token --revoke.
Others can see it in the list of processes: prefer --token-file`},
		cli.StringFlag{Name: "token-file", Usage: `A <file> with such a token`},
	}},
	{"WHICH CA", []cli.Flag{
		cli.StringFlag{Name: "ca-url", Usage: `The address of the CA, an HTTPS <uri>`},
		cli.StringFlag{Name: "root", Usage: `The CA's root certificate, a PEM <file>`},
		cli.StringFlag{Name: "fingerprint", Usage: `The SHA-256 fingerprint (<hex>) of the CA's root certificate, which is
then fetched from the CA; needs no --root`},
		cli.StringFlag{Name: "context", Usage: `The <name> of the step context to use`},
	}},
	{"ON THE CA HOST", []cli.Flag{
		cli.BoolFlag{Name: "offline", Usage: `Revoke in the CA's own database, without the CA`},
		cli.StringFlag{Name: "ca-config", Usage: `The CA's configuration, a <file>; $(step path)/config/ca.json unless given`},
		cli.StringFlag{Name: "ca-password-file", Usage: `A <file> with the password of the CA's key, which signs the CRL. It is
needed only where the CA has CRLs`},
	}},
	{"OTHERS", []cli.Flag{
		cli.BoolFlag{Name: "version", EnvVar: commandLineOnly, Usage: `Print the version`},
		cli.BoolFlag{Name: "help, h", EnvVar: commandLineOnly, Usage: `Print this help`},
	}},
}

// allFlags are the flags of all groups.
func allFlags() []cli.Flag {
	var all []cli.Flag
	for _, group := range flagGroups {
		all = append(all, group.flags...)
	}
	return all
}

// revokeCommand is the app's one command. given are the flags that stand on
// the command line itself.
func revokeCommand(ctx context.Context, given map[string]bool) cli.Command {
	return cli.Command{
		Name:           "revoke",
		Flags:          allFlags(),
		HideHelp:       true, // the flag is in our own table
		SkipArgReorder: true, // flagsFirst has done it
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return flagError(err) },
		Before:         func(*cli.Context) error { return nil }, // keeps step.SetEnvVar from adding its own
		Action: func(c *cli.Context) error {
			o, err := configure(ctx, c, given)
			if err != nil {
				return usageError(err)
			}
			return revoke(ctx, o)
		},
	}
}

// configure reads step's environment and then the options.
func configure(ctx context.Context, c *cli.Context, given map[string]bool) (*options, error) {
	if err := initStep(); err != nil {
		return nil, err
	}
	if err := useContext(ctx, c.String("context")); err != nil {
		return nil, err
	}
	sayDebug("step-revoke-plugin %s, step path %s", programVersion(), step.Path())
	if err := checkDefaults(c); err != nil {
		return nil, err
	}
	if err := step.Contexts().Apply(c); err != nil {
		return nil, err
	}
	return readOptions(ctx, c, given)
}

// flagError words an error of package flag in the way of the others.
func flagError(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return usagef("there is no flag %s", dashed(name)).hint("see 'step revoke --help'")
	}
	if _, name, ok := strings.Cut(err.Error(), " for -"); ok && strings.HasPrefix(err.Error(), "invalid boolean value ") {
		name, _, _ = strings.Cut(name, ":")
		return usagef("%s is either true or false", dashed(name))
	}
	for _, name := range []string{"concurrency", "rate"} {
		if value, _, ok := strings.Cut(strings.TrimPrefix(err.Error(), "invalid value "), " for flag -"+name+":"); ok {
			return usagef("%s is no value for %s, which takes a whole number", value, dashed(name))
		}
	}
	return usageError(err)
}

// usageError gives an error the exit code for usage.
func usageError(err error) error {
	var p *problem
	if !errors.As(err, &p) {
		return usagef("%w", err).hint("see 'step revoke --help'")
	}
	if p.code == exitFailed {
		p.code = exitUsage
	}
	return err
}

// An authority is where certificates are revoked: a CA that is online, or its
// authority in this process.
type authority interface {
	// Issuers returns the certificates that the CA issues with.
	Issuers(context.Context) ([]*x509.Certificate, error)
	// Provisioners returns all of the CA's provisioners.
	Provisioners(context.Context) (provisioner.List, error)
	// Audience is the audience that tokens for revoking must have.
	Audience() string
	// Open is the last step before the first revocation. It refuses targets
	// that the CA is known not to know.
	Open(context.Context, []target) error
	// Revoke revokes one certificate; several may be under way. Without an error
	// the CA has confirmed it; errAlreadyRevoked, noAnswer and notSent are the
	// errors that are no refusal.
	Revoke(context.Context, *api.RevokeRequest) error
	// Evidence returns what the CA has on record.
	Evidence(context.Context) (evidence, error)
	// Touched tells whether the CA was contacted or its database opened. It
	// parts the exit codes 1 and 2.
	Touched() bool
	// Close must be called after every run. Its error means that something
	// beyond the revocations is missing.
	Close(context.Context) error
}

var (
	errAlreadyRevoked = errors.New("the certificate is already revoked")
	errReported       = errors.New("reported")
)

// noAnswer is an error of a revocation that may have happened all the same.
type noAnswer struct{ error }

// notSent is an error of a revocation that has not reached the CA.
type notSent struct{ error }

func (e noAnswer) Unwrap() error { return e.error }
func (e notSent) Unwrap() error  { return e.error }

// revoke revokes what the options ask for. Nothing is sent or written before
// everything that can be checked has been.
func revoke(ctx context.Context, o *options) error {
	targets, err := readTargets(ctx, o)
	if err != nil {
		return err
	}
	if o.offline {
		if err := readCAConfig(o); err != nil {
			return usageError(err)
		}
	}
	journal, err := openJournal(ctx, o, targets)
	if err != nil {
		return err
	}
	r := newReport(o, targets.list, journal)
	if r.left() > 0 || o.verify {
		err = attempt(ctx, o, targets, r)
	}
	err = r.conclude(ctx, err)
	if closeErr := journal.close(); closeErr != nil {
		if err != nil {
			sayProblem(closeErr)
		}
		err = cmp.Or(err, closeErr)
	}
	return err
}

// attempt gets hold of the proof and of the CA, revokes, and verifies that.
func attempt(ctx context.Context, o *options, t *targets, r *report) error {
	var client *tls.Certificate
	if r.left() > 0 {
		if err := confirmTargets(ctx, o, t.list, r.left()); err != nil {
			return err
		}
		var err error
		if client, err = readProof(ctx, o, t.list); err != nil {
			return err
		}
	}
	ca, err := connect(ctx, o, client)
	if err != nil {
		return err
	}
	stopped, err := carryOut(ctx, o, ca, t, r)
	if err != nil {
		err = codedError(err, ca.Touched())
	} else if o.verify {
		err = r.prove(ctx, ca)
	}
	if err != nil && stopped != nil {
		sayProblem(stopped)
		stopped = nil
	}
	closeErr := ca.Close(ctx)
	if err = cmp.Or(stopped, err); err != nil && closeErr != nil {
		sayProblem(closeErr)
	}
	return cmp.Or(err, closeErr)
}

// readProof reads what is to authorize the revocations, which a mere look does
// not need. It returns the certificate of --cert and --key, if that is it.
func readProof(ctx context.Context, o *options, list []target) (client *tls.Certificate, err error) {
	if o.looks() {
		return nil, nil
	}
	if err := confirmReason(ctx, o); err != nil {
		return nil, err
	}
	if o.keyFile != "" {
		return clientCertificate(ctx, o)
	}
	if o.token != nil {
		return nil, o.token.check(list)
	}
	if err := readCredentials(ctx, o); err != nil {
		return nil, usageError(err)
	}
	return nil, nil
}

// carryOut takes the last steps before the first revocation, and then revokes.
// Its second error means that none was attempted; the first one says why some
// were not.
func carryOut(ctx context.Context, o *options, ca authority, t *targets, r *report) (stopped, err error) {
	if err := checkIssued(ctx, o, ca, t.list); err != nil {
		return nil, err
	}
	if r.left() == 0 {
		return nil, ca.Open(ctx, t.list)
	}
	proof, err := newAuthorizer(ctx, o, ca)
	if err != nil {
		return nil, err
	}
	r.authorizedBy = proof.String()
	if err := ca.Open(ctx, t.list); err != nil || o.looks() {
		return nil, err
	}
	if err := r.begin(t); err != nil {
		return nil, err
	}
	b := &batch{options: o, ca: ca, proof: proof, list: t.list, report: r}
	return b.run(ctx), nil
}

// codedError parts the exit codes: a mistake in the command that came to light
// only with the CA's help is no usage error, but an answer that is missing is.
func codedError(err error, touched bool) error {
	if !touched {
		return usageError(err)
	}
	var p *problem
	if errors.As(err, &p) && p.code == exitUsage && !errors.Is(err, errNoTerminal) && !errors.Is(err, errNothingTyped) {
		p.code = exitFailed
	}
	return err
}

// confirmReason speaks up where a reason's name promises what step-ca does not
// do.
func confirmReason(ctx context.Context, o *options) error {
	switch o.reasonCode.code {
	case codeCertificateHold:
		sayMarked(warn, "certificateHold is final: step-ca cannot lift a hold")
	case codeRemoveFromCRL:
		sayMarked(warn, "removeFromCRL revokes for good, and OpenSSL treats a CRL entry with this code as not revoked")
		if o.force || o.dryRun {
			return nil
		}
		yes, err := confirm(ctx, "--force", "Revoke with removeFromCRL?")
		if err == nil && !yes {
			err = errNotConfirmed
		}
		return err
	}
	return nil
}

// connect prepares the CA that the options name.
func connect(ctx context.Context, o *options, client *tls.Certificate) (ca authority, err error) {
	if o.offline {
		ca, err = newOffline(ctx, o, client)
	} else {
		ca, err = newOnline(ctx, o, client)
	}
	if err == nil && o.dryRun {
		ca = dryRun{ca}
	}
	return ca, err
}
