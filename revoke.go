package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/authorize"
	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/journal"
	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// An authority is where certificates are revoked: a CA that is online, or its
// authority in this process. It is everything that a run asks of a CA.
type authority interface {
	batch.CA     // Revoke
	authorize.CA // Provisioners, Audience
	// Issuers returns the certificates that the CA issues with.
	Issuers(context.Context) ([]*x509.Certificate, error)
	// Concurrency is how many revocations to have in flight: as many as are
	// wanted, unless that is 0 or the CA bears fewer.
	Concurrency(wanted int) int
	// Open is the last step before the first revocation. It refuses targets
	// that the CA is known not to know.
	Open(context.Context, *target.List) error
	// Evidence returns what the CA has on record.
	Evidence(context.Context) (revocation.Evidence, error)
	// Contacted tells whether the CA was contacted or its database opened. It
	// separates the exit codes 1 and 2.
	Contacted() bool
	// Close must be called after every run. Its error means that something
	// beyond the revocations is missing.
	Close(context.Context) error
}

var (
	_ authority = (*online.CA)(nil)
	_ authority = (*offline.CA)(nil)
	_ authority = dryRun{}
)

// revoke revokes what the options ask for. Nothing is sent or written before
// everything that can be checked has been.
func revoke(ctx context.Context, o *options) error {
	chosen, reason, err := readTargets(ctx, o)
	if err == nil {
		err = o.checkRelease(reason)
	}
	if err == nil {
		err = checkMax(o, &chosen.list)
	}
	if err != nil || len(chosen.list.All)+len(chosen.before) == 0 {
		return err
	}
	list := &chosen.list
	j, err := openJournal(ctx, o, list, reason)
	if err != nil {
		return err
	}
	r := newReport(o, list, reason, j)
	r.before, r.records = chosen.before, chosen.records
	err = problem.Default(recheck(ctx, o, list, reason, j), problem.Usage)
	if err == nil && (r.left() > 0 || o.verify) {
		err = problem.Default(attempt(ctx, o, list, r), problem.Usage)
		if warnErr := r.sayBeside(ctx); warnErr != nil {
			ui.Warn("could not check whether other certificates have the same key: %v", warnErr)
		}
		r.sayAftermath(ctx)
	}
	return r.conclude(ctx, err) // which closes the journal
}

// attempt gets hold of the proof and of the CA, and revokes.
func attempt(ctx context.Context, o *options, list *target.List, r *report) (err error) {
	defer problem.Recover(&err)
	credentials := &authorize.Credentials{}
	if r.left() > 0 && !o.looksOnly() {
		if err := confirm(ctx, o, list, r); err != nil {
			return err
		}
		if credentials, err = authorize.Read(ctx, o.proof, list); err != nil {
			return err
		}
	}
	ca, err := connect(ctx, o, r, credentials.Certificate())
	if err != nil {
		return err
	}
	err = errors.Join(carryOut(ctx, o, ca, credentials, list, r), ca.Close(ctx))
	if ca.Contacted() {
		err = problem.Default(err, problem.Failed)
	}
	return err
}

// carryOut takes the last steps before the first revocation, revokes, and
// verifies that, also if the run has stopped before the turn of some targets.
func carryOut(ctx context.Context, o *options, ca authority, credentials *authorize.Credentials, list *target.List, r *report) (err error) {
	defer problem.Recover(&err) // the CA must be closed, and what has happened reported
	if err := checkIssued(ctx, o, ca, list); err != nil {
		return err
	}
	var proof authorize.Proof
	acts := r.left() > 0 && !o.looksOnly()
	if acts {
		if proof, err = credentials.Proof(ctx, ca); err != nil {
			return err
		}
		if o.dryRun {
			if proof, err = tested(proof, list); err != nil {
				return err
			}
		}
	}
	if err := ca.Open(ctx, list); err != nil {
		return err
	}
	var stopped error // why some were not attempted
	if acts {
		if err := r.begin(proof.String()); err != nil {
			return err
		}
		stop, untune := r.watchCRL(ctx, ca), func() {}
		if r.many() && !o.dryRun {
			untune = batch.Tune(o.batch.InProcess)
		}
		stopped = r.end(batch.Run(ctx, pace(o, ca, r), ca, proof, list, r))
		untune()
		stop()
	}
	if o.verify {
		return errors.Join(stopped, r.verify(ctx, ca))
	}
	return stopped
}

// pace is how hard to push this CA. A dry run goes one by one, in order.
func pace(o *options, ca authority, r *report) batch.Config {
	c := o.batch
	c.Reason, c.Interval = r.reason, r.progress.Interval()
	if o.dryRun {
		c.Concurrency, c.Rate = 1, 0
		return c
	}
	c.Concurrency = ca.Concurrency(c.Concurrency)
	return c
}

// softMemoryLimit keeps a run online with a million serial numbers below 150 MB
// of memory: Go's collector runs as often as that takes. Offline the authority
// and its database need more.
const softMemoryLimit = 100 << 20

// readTargets reads and checks everything that is to be revoked, and settles
// for which reason.
func readTargets(ctx context.Context, o *options) (*choice, revocation.Reason, error) {
	if o.query.IsSet() {
		c, err := readChosen(ctx, o)
		return c, o.reason, err
	}
	list, reason, err := readNamed(ctx, o)
	if err != nil {
		return nil, reason, err
	}
	return &choice{list: *list}, reason, nil
}

// readNamed reads and checks what is named one by one, or in files.
func readNamed(ctx context.Context, o *options) (*target.List, revocation.Reason, error) {
	sources := o.targets
	if len(sources.Serials)+len(sources.Certs) == 0 && len(sources.From) == 0 {
		serial, err := ui.Ask(ctx, "a serial number, --cert, --from or --where", "Serial number", "`step certificate inspect FILE` shows the serial number of a certificate",
			func(s string) error { _, err := target.ParseSerial(s); return err })
		if err != nil {
			return nil, o.reason, err
		}
		sources.Serials = []string{serial}
	}
	if len(sources.From) > 0 && o.offline == nil {
		debug.SetMemoryLimit(softMemoryLimit)
	}
	if slices.Contains(sources.From, "-") && ui.StdinIsTerminal() {
		ui.Good("Reading serial numbers or certificates from the terminal, until Ctrl-D on a line of its own")
	}
	var settled *revocation.Reason
	if o.reasonGiven {
		settled = &o.reason
	}
	sources.Agree = func(c target.Claim) (err error) {
		settled, err = o.planReason(c, settled)
		return err
	}
	list, notes, err := target.Read(ctx, sources)
	for _, n := range notes {
		for _, line := range n.LeftOut {
			ui.Warn("%s", line)
		}
	}
	if err != nil {
		return nil, o.reason, err
	}
	for _, n := range notes {
		saySource(n)
	}
	if settled == nil {
		settled = &o.reason
	}
	return list, *settled, nil
}

// checkMax makes sure that there are not more targets than somebody expects.
func checkMax(o *options, list *target.List) error {
	if o.max == 0 || len(list.All) <= o.max {
		return nil
	}
	return problem.WithCode(problem.Usage, "%s to be revoked, more than the %s of --max", ui.Count(len(list.All), "certificate is", "certificates are"), ui.Number(o.max)).
		Hint("--dry-run without --max shows them")
}

// saySource says how many certificates one --from names.
func saySource(n target.Notes) {
	what := ui.Count(n.Read-n.Repeated, "certificate", "certificates")
	if n.Repeated > 0 {
		what += " (" + ui.Count(n.Repeated, "repetition", "repetitions") + " left out)"
	}
	if n.Files > 0 {
		what += " in " + ui.Count(n.Files, "file", "files")
	}
	ui.Selected("From", n.Name+", "+what)
}

// openJournal opens the journal that the options ask for, if they do, and marks
// the targets that it says are revoked. Nothing is written yet.
func openJournal(ctx context.Context, o *options, list *target.List, reason revocation.Reason) (*journal.Journal, error) {
	defer list.DropIndex()
	if o.journal == "" || o.looksOnly() {
		return nil, nil
	}
	j, err := journal.Open(ctx, o.journal, o.dryRun, list, func(h *journal.Header) error { return o.checkHeader(h, reason) }, func() {
		ui.Warn("the journal %s is in use: waiting for the other run to end for at most %s", o.journal, seconds(journal.Patience))
	})
	if err != nil {
		return nil, err
	}
	found := j.Found()
	if found.OtherTargets && !o.query.IsSet() {
		ui.Warn("the journal was started for a different list of certificates")
	}
	if found.Damaged > 0 {
		ui.Warn("the journal has gaps, as after a power failure: %s skipped", ui.Count(found.Damaged, "line was", "lines were"))
	}
	if found.Header == nil {
		return j, nil
	}
	if more := len(list.All) - found.Header.Targets; o.query.IsSet() && more > 0 {
		ui.Warn("%s now than when the journal was started", ui.Count(more, "more certificate matches", "more certificates match"))
	} else if found.OtherTargets && o.query.IsSet() {
		ui.Warn("other certificates match now than when the journal was started")
	}
	all, since := ui.Count(len(list.All), "certificate", "certificates"), revocation.Stamp(found.Since)
	switch found.Done {
	case 0:
		ui.Selected("Journal", o.journal+", nothing done yet")
	case len(list.All):
		ui.Selected("Journal", o.journal+", all "+all+" done, the first at "+since)
	default:
		ui.Selected("Journal", o.journal+", "+ui.Number(found.Done)+" of "+all+" done, the first at "+since)
	}
	return j, nil
}

// recheck has the last word on what a journal says is revoked, where the CA's
// database is at hand.
func recheck(ctx context.Context, o *options, list *target.List, reason revocation.Reason, j *journal.Journal) error {
	if o.offline == nil || j.Found().Done == 0 {
		return nil
	}
	c := *o.offline
	c.ReasonCode = reason.Code
	cleared, err := offline.Recheck(ctx, c, o.settings, list)
	j.Recount(list)
	switch {
	case err != nil || cleared == 0:
	case reason.Code == revocation.RemoveFromCRL:
		ui.Warn("the journal has %s that the CA's database does not have; the database is right", ui.Count(cleared, "release", "releases"))
	default:
		ui.Warn("the journal has %s that the CA's database does not have; the database is right", ui.Count(cleared, "revocation", "revocations"))
	}
	return withCommand(err)
}

// journalHeader is the first line of a journal that this run begins.
func journalHeader(o *options, list *target.List, reason revocation.Reason, authorizedBy string) journal.Header {
	host, _ := os.Hostname()
	name, _ := thisUser()
	return journal.Header{
		CA: o.caName(), Root: o.rootFingerprints()[0],
		ReasonCode: reason.Code, ReasonName: reason.Name, Reason: reason.Text,
		Time: revocation.Stamp(time.Now()), AuthorizedBy: authorizedBy, User: name, Host: host, Version: programVersion(),
		Targets: len(list.All), TargetsDigest: list.Digest(), Where: o.query.Terms(),
	}
}

// checkIssued makes sure that the CA has issued every certificate in hand.
func checkIssued(ctx context.Context, o *options, ca authority, list *target.List) error {
	if !list.HasCertificates() {
		return nil
	}
	if o.allowUnknown {
		list.DropCertificates()
		return nil
	}
	issuers, err := ca.Issuers(ctx)
	if err != nil {
		return err
	}
	return list.CheckIssued(issuers)
}

// shownTargets is how many targets a question shows.
const shownTargets = 5

// errNotConfirmed ends a run that a person has declined.
var errNotConfirmed = problem.WithCode(problem.Failed, "not confirmed: nothing was revoked")

// confirm asks whether to revoke what nobody has typed one by one, and says how to
// lift a hold that is set.
func confirm(ctx context.Context, o *options, list *target.List, r *report) error {
	if r.releases() {
		return confirmRelease(ctx, o, list, r)
	}
	if (len(o.targets.From) > 0 || o.query.IsSet()) && !o.force && !o.dryRun {
		if err := ui.CheckTerminal("--force"); err != nil {
			return err
		}
		showTargets(o, list, r)
		if err := demandYes(ctx, "Revoke "+ui.Count(r.left(), "certificate", "certificates")+"?"); err != nil {
			return err
		}
	}
	if r.reason.Code == revocation.CertificateHold && o.offline == nil {
		ui.Warn("a hold can be lifted only on the CA's host: %s", releaseCommand)
	}
	return nil
}

func demandYes(ctx context.Context, question string) error {
	yes, err := ui.Confirm(ctx, "--force", question)
	if err == nil && !yes {
		return errNotConfirmed
	}
	return err
}

// showTargets shows what is to be revoked, or released.
func showTargets(o *options, list *target.List, r *report) {
	left, what := r.left(), "revoked"
	if r.releases() {
		left, what = r.holds.Held, "released"
	}
	ui.Say("%s to be %s:", ui.Count(left, "certificate is", "certificates are"), what)
	ui.Say("  CA: %s", o.caName())
	ui.Say("  Reason: %s", r.reason)
	shown := 0
	for _, t := range list.All {
		if t.Done || r.refuseRelease(t.Serial) != nil {
			continue
		}
		if shown++; shown > shownTargets && left > shown {
			ui.Say("  … and %s more", ui.Number(left-shown+1))
			return
		}
		ui.Say("  %s", strings.TrimSpace(t.Serial.String()+" "+describeCertificate(t.Cert)))
	}
}

// shownNames is how many names of a certificate are shown.
const shownNames = 3

// describeCertificate says what is known about a certificate, which may be nil.
func describeCertificate(c *target.Certificate) string {
	if c == nil {
		return ""
	}
	parts := []string{c.Subject}
	if len(c.SANs) > 0 {
		parts = append(parts, namesOf(c))
	}
	if c.Provisioner != "" {
		parts = append(parts, "from "+c.Provisioner)
	}
	if end := expiryOf(c); end != "" {
		parts = append(parts, "until "+end)
	}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "; ")
}

// expiryOf says when a certificate expires, if somebody has checked that.
func expiryOf(c *target.Certificate) string {
	if c.NotAfter.IsZero() {
		return ""
	}
	return revocation.Stamp(c.NotAfter)
}

// namesOf lists the first names of a certificate.
func namesOf(c *target.Certificate) string {
	shown := strings.Join(c.SANs[:min(len(c.SANs), shownNames)], ", ")
	if more := len(c.SANs) - shownNames; more > 0 {
		shown += fmt.Sprintf(" and %s more", ui.Number(more))
	}
	return shown
}

// connect prepares the CA that the options name.
func connect(ctx context.Context, o *options, r *report, client *tls.Certificate) (authority, error) {
	var ca authority
	var err error
	if o.offline == nil {
		ca, err = online.Connect(ctx, o.online, client)
	} else {
		c := *o.offline
		c.ReasonCode = r.reason.Code
		ca, err = offline.New(ctx, c, o.settings, client)
	}
	if err != nil {
		return nil, withCommand(err)
	}
	if o.dryRun {
		return dryRun{authority: ca, refuse: r.refuseRelease, chosen: o.query.IsSet()}, nil
	}
	return ca, nil
}
