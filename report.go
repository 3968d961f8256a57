package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/journal"
	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// fewTargets is how many certificates get a line each for a person. Larger
// batches print individual lines only for their first failures.
const fewTargets = 20

// errReported is the error of a run whose failures were printed as they
// happened.
var errReported error = problem.WithCode(problem.Failed, "at least one certificate is not known to be revoked")

// A report says what becomes of the targets: to a person, with --format json to
// a program, and to the journal.
type report struct {
	options      *options
	ca, root     string // the CA's name, and the fingerprint of its root
	list         *target.List
	reason       revocation.Reason
	journal      *journal.Journal // nil if there is none
	before       []target.Target  // what was revoked before and is only to be verified
	records      records          // of a look with --where, from the CA's database; else nil
	holds        *offline.Holds   // of a run that releases, once it has looked
	authorizedBy string
	progress     *ui.Progress // nil before the first attempt
	speed        string       // of the batch, once it has ended

	counts       map[revocation.Status]int
	causes       map[revocation.Status]map[string]int // of what is not revoked
	told         int                                  // problems that were printed one by one
	retries      int                                  // retries that were not printed yet
	lastRetry    time.Time                            // when one was printed
	kept         []*revocation.Outcome                // what --verify may still change
	fromJournal  bool                                 // what the journal had is written to standard output
	columns      []column                             // of the table of a dry run
	upright      bool                                 // the table is too wide: each row is some lines
	watch        *crlWatch                            // of a large batch; nil if there is nothing to watch
	interrupted  bool                                 // a signal has ended the batch
	hasCRL       *bool                                // whether the CA has one; nil if that is not known
	errUnwritten error                                // why standard output lacks something
}

var _ batch.Watcher = (*report)(nil)

func newReport(o *options, list *target.List, reason revocation.Reason, j *journal.Journal) *report {
	return &report{
		options: o, ca: o.caName(), root: o.rootFingerprints()[0], list: list, reason: reason, journal: j,
		counts: map[revocation.Status]int{}, causes: map[revocation.Status]map[string]int{},
	}
}

// left is how many targets the journal does not say are revoked.
func (r *report) left() int { return len(r.list.All) - r.journal.Found().Done }

// all is how many certificates a run says something about.
func (r *report) all() int { return len(r.list.All) + len(r.before) }

func (r *report) many() bool { return r.all() > fewTargets }

// begin is called before the first attempt.
func (r *report) begin(authorizedBy string) error {
	r.authorizedBy = authorizedBy
	if r.journal != nil {
		if err := r.journal.Begin(journalHeader(r.options, r.list, r.reason, authorizedBy)); err != nil {
			return err
		}
	}
	r.progress = ui.NewProgress(r.left())
	return nil
}

const (
	againHint        = "fix that and run the same command again, with the same --journal if it has one: a certificate that is already revoked is not a failure"
	againReleaseHint = "fix that and run the same command again, with the same --journal if it has one: it skips what is released"
)

// end is called after the last attempt, with the error of the batch, which it
// words.
func (r *report) end(err error) error {
	done, took := r.progress.End()
	if !r.options.dryRun {
		r.speed = fmt.Sprintf("; %s, %s/s", took.Round(10*time.Millisecond), ui.PerSecond(done, took))
	}
	if stopped := (*batch.Stopped)(nil); errors.As(err, &stopped) {
		left := ui.Count(stopped.Left, "certificate", "certificates")
		err := problem.Wrap(stopped.Err, "the run has stopped with %s left", left)
		if r.releases() {
			return err.Hint(againReleaseHint)
		}
		return err.Hint(againHint)
	}
	return err
}

// Ended takes an outcome as it happens. What --verify may still change is not
// written to standard output before it has. An error means that the journal
// cannot be written.
func (r *report) Ended(o *revocation.Outcome) error {
	o.Time, o.AuthorizedBy = time.Now().UTC(), r.authorizedBy
	if r.options.dryRun {
		o.Attempts = 0
	}
	r.count(o, 1)
	if o.Status != revocation.NotAttempted {
		r.progress.Add(o.Status == revocation.Failed || o.Status == revocation.Unknown)
	}
	// First of all to the journal: readers of the rest may keep it waiting.
	var err error
	if o.Status != revocation.NotAttempted && !r.options.dryRun {
		err = r.journal.Write(r.object(o))
	}
	r.sayOutcome(o)
	if r.watch.ended(o.Status) {
		r.saySlowing()
	}
	if r.options.verify {
		r.kept = append(r.kept, o)
	} else {
		r.write(o)
	}
	if err != nil {
		return problem.WithCode(problem.Incomplete, "%w", err).
			Hint("a later run finds what is missing there already revoked, which is not a failure")
	}
	return nil
}

func (r *report) object(o *revocation.Outcome) *revocation.Object {
	r.setReason(o)
	return o.Object(r.ca, r.root)
}

// maxCauses is how many causes are told apart. A CA can word each refusal anew.
const maxCauses = 50

// count counts an outcome, or takes it back with n = -1.
func (r *report) count(o *revocation.Outcome, n int) {
	r.counts[o.Status] += n
	if o.Status.Done() || o.Err == nil {
		return
	}
	causes := r.causes[o.Status]
	if causes == nil {
		causes = map[string]int{}
		r.causes[o.Status] = causes
	}
	cause := cmp.Or(o.Cause, o.Err.Error())
	if _, known := causes[cause]; !known && (len(causes) >= maxCauses || n < 0) {
		cause = otherCauses
	}
	if causes[cause] += n; causes[cause] == 0 {
		delete(causes, cause)
	}
}

// otherCauses stands for the causes beyond maxCauses.
const otherCauses = "other causes"

// sayOutcome prints what became of one certificate.
func (r *report) sayOutcome(o *revocation.Outcome) {
	if r.interrupted && (o.Status == revocation.Unknown || o.Status == revocation.NotAttempted) {
		return
	}
	if r.many() {
		if o.Status != revocation.Failed && o.Status != revocation.Unknown {
			return
		}
		if r.told++; r.told > fewTargets/2 {
			if r.told == fewTargets/2+1 {
				ui.Warn("more failures will only be counted; --format json and --journal name each one")
			}
			return
		}
	}
	serial := o.Target.Serial
	switch o.Status {
	case revocation.Revoked:
		ui.Say("Certificate with Serial Number %s has been revoked.", serial)
		if o.Held {
			ui.Hint("it was on hold before")
		}
	case revocation.Released:
		ui.Say("Certificate with Serial Number %s has been released.", serial)
	case revocation.AlreadyRevoked:
		if r.options.dryRun { // the table has its reason
			return
		}
		ui.Say("Certificate with Serial Number %s was already revoked.", serial)
		if o.Unanswered {
			ui.Hint("perhaps by an earlier attempt of this run, which got no clear answer")
		} else {
			ui.Hint("the CA keeps the reason of the first revocation")
		}
		if o.StaleCRL {
			ui.Warn("the CA failed after it had stored the revocation: its CRL may lack it until the next one")
		}
	case revocation.Unknown:
		ui.Error(problem.Wrap(o.Err, "it is not known whether the certificate with serial number %s is %s", serial, r.done()).Hint("%s", r.unknownHint()))
	case revocation.NotAttempted:
		if o.Next != revocation.Reach || o.Err == nil {
			ui.Say("Certificate with Serial Number %s was not attempted.", serial)
			return
		}
		fallthrough
	case revocation.Failed:
		ui.Error(problem.Wrap(o.Err, "the certificate with serial number %s was not %s", serial, r.done()))
	}
}

// done says what is to become of the certificates.
func (r *report) done() string {
	if r.releases() {
		return "released"
	}
	return "revoked"
}

// unknownHint says how to find out what became of a certificate.
func (r *report) unknownHint() string {
	if r.releases() {
		return "--dry-run --verify shows whether it is still on hold"
	}
	return "run the same command again with a new token, if it had one: it says 'already revoked' if this went through; --dry-run --verify looks without revoking"
}

// Retrying prints that an attempt will be repeated. Of many certificates it is
// printed once a second.
func (r *report) Retrying(o *revocation.Outcome, wait time.Duration) {
	r.retries++
	if r.many() && time.Since(r.lastRetry) < time.Second {
		return
	}
	var others string
	if r.retries > 1 {
		others = fmt.Sprintf(" (and %s)", ui.Count(r.retries-1, "other", "others"))
	}
	ui.Warn("serial number %s%s, attempt %d: %v; trying again in %s", o.Target.Serial, others, o.Attempts, o.Err, wait.Round(time.Millisecond))
	r.retries, r.lastRetry = 0, time.Now()
}

// Unreachable prints that the whole batch waits for the CA.
func (r *report) Unreachable(err error, wait time.Duration) {
	ui.Warn("%v; trying again in %s", err, wait.Round(time.Millisecond))
}

// Reachable prints that the batch goes on.
func (r *report) Reachable() { ui.Good("The CA can be reached again") }

// Tick shows how far the batch is.
func (r *report) Tick() { r.progress.Show() }

// conclude writes what is left to write, closes the journal, and turns what has
// happened into the error that the run ends with.
func (r *report) conclude(ctx context.Context, err error) error {
	err = errors.Join(err, r.writeRest(err))
	r.saySummary()
	r.sayInterrupted()
	if r.errUnwritten != nil {
		code := problem.Incomplete
		if r.options.dryRun {
			code = problem.Failed // it was all that was asked for
		}
		err = errors.Join(problem.WithCode(code, "writing the result: %w", r.errUnwritten), err)
	}
	if ctx.Err() != nil {
		err = errors.Join(dropInterrupted(err), problem.ErrInterrupted)
	} else if r.notDone() > 0 {
		err = errors.Join(err, errReported)
	}
	return errors.Join(err, r.journal.Close())
}

// notDone is how many certificates are not known to be what was asked for.
func (r *report) notDone() (n int) {
	for status, count := range r.counts {
		if !status.Done() && status != revocation.Planned {
			n += count
		}
	}
	return n
}

// dropInterrupted leaves out what only says that the run was interrupted.
func dropInterrupted(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(slices.DeleteFunc(problem.Parts(err), func(part error) bool { return errors.Is(part, problem.ErrInterrupted) })...)
}

// writeRest writes to standard output what it still lacks: outcomes that a
// verification has not come to, targets that the run has not come to, and what
// the journal had. A mistake in the command is not about targets.
func (r *report) writeRest(err error) error {
	if problem.Code(err) == problem.Usage {
		return nil
	}
	for _, o := range r.kept {
		r.write(o)
	}
	r.kept = nil
	cameToNothing := err != nil && len(r.counts) == 0
	for i := range r.list.All {
		if t := &r.list.All[i]; cameToNothing && r.options.json && !t.Done {
			r.write(&revocation.Outcome{
				Target: t, Answer: revocation.Answer{Status: revocation.NotAttempted, Err: err},
				AuthorizedBy: r.authorizedBy, Time: time.Now().UTC(),
			})
		}
	}
	if r.fromJournal || !r.options.json && (cameToNothing || !r.options.dryRun) {
		return nil
	}
	return r.journal.Outcomes(r.list, r.write)
}

// write writes what standard output is to have of an outcome. If that fails the
// revocation has happened all the same: conclude says what is missing.
func (r *report) write(o *revocation.Outcome) {
	var err error
	switch {
	case r.options.json:
		var line []byte
		if line, err = r.object(o).Line(); err == nil {
			err = ui.Print(string(line))
		}
	case r.options.dryRun:
		err = r.writeRow(o)
	}
	r.errUnwritten = cmp.Or(r.errUnwritten, err)
}

// saySummary prints how a batch of several went.
func (r *report) saySummary() {
	total := 0
	for _, n := range r.counts {
		total += n
	}
	if r.all() < 2 || total == 0 {
		return
	}
	var parts []string
	for _, part := range []struct {
		status revocation.Status
		always bool
	}{
		{revocation.Planned, false},
		{revocation.Revoked, !r.options.dryRun && !r.releases()},
		{revocation.AlreadyRevoked, !r.options.dryRun && !r.releases()},
		{revocation.Released, !r.options.dryRun && r.releases()},
		{revocation.NotRevoked, false},
		{revocation.NotListed, false},
		{revocation.Failed, !r.options.dryRun},
		{revocation.Unknown, false},
		{revocation.NotAttempted, !r.options.dryRun},
	} {
		if n := r.counts[part.status]; n > 0 || part.always {
			parts = append(parts, ui.Number(n)+" "+words(part.status))
		}
	}
	ui.Say("%s: %s%s.", ui.Count(total, "certificate", "certificates"), strings.Join(parts, ", "), r.speed)
	for _, s := range []revocation.Status{revocation.Failed, revocation.Unknown, revocation.NotAttempted} {
		r.sayCauses(s)
	}
}

// sayCauses prints why certificates are not revoked, the most frequent causes
// first.
func (r *report) sayCauses(s revocation.Status) {
	causes := r.causes[s]
	sorted := slices.SortedFunc(maps.Keys(causes), func(a, b string) int { return cmp.Or(causes[b]-causes[a], cmp.Compare(a, b)) })
	for _, cause := range sorted[:min(len(sorted), fewTargets/2)] {
		ui.Say("  %s %s: %s", ui.Number(causes[cause]), words(s), cause)
	}
	if more := len(sorted) - fewTargets/2; more > 0 {
		ui.Say("  and %s", ui.Count(more, "other cause", "other causes"))
	}
}

// words is a status in a sentence.
func words(s revocation.Status) string { return strings.ReplaceAll(string(s), "-", " ") }
