package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// few is how many certificates get a line each for a person. Of more than that
// only what is wrong with the first ones is told one by one.
const few = 20

// A report says what becomes of the targets: to a person, with --format json to
// a program, and to the journal.
type report struct {
	options      *options
	list         []target
	journal      *journal
	authorizedBy string
	progress     *progress // nil until the first attempt

	counts    map[status]int
	causes    map[status]map[string]int // of what is not revoked
	told      int                       // problems that were told one by one
	retries   int                       // that were not told yet
	toldRetry time.Time
	kept      []*outcome // what --verify may still change
	columns   []int      // of the table of a dry run: the widths
	unwritten error      // why standard output lacks something
}

func newReport(o *options, list []target, j *journal) *report {
	return &report{options: o, list: list, journal: j, counts: map[status]int{}, causes: map[status]map[string]int{}}
}

// left is how many targets the journal does not say are revoked.
func (r *report) left() int {
	if r.journal == nil {
		return len(r.list)
	}
	return len(r.list) - r.journal.done
}

// begin is called before the first attempt.
func (r *report) begin(t *targets) error {
	if err := r.journal.begin(r.options, t, r.authorizedBy); err != nil {
		return err
	}
	r.progress = newProgress(r.left())
	return nil
}

func (r *report) many() bool { return len(r.list) > few }

// arrived takes an outcome as it happens. What --verify may still change is not
// written before it has. An error means that the journal cannot be written.
func (r *report) arrived(o *outcome) error {
	o.time, o.authorizedBy = time.Now().UTC(), r.authorizedBy
	r.count(o, 1)
	r.progress.add(o)
	// First of all to the journal: who reads the rest may keep it waiting.
	var err error
	if r.journal != nil && o.status != statusNotAttempted && o.status != statusPlanned {
		err = r.journal.write(o.object(r.options))
	}
	r.sayOutcome(o)
	if r.options.verify {
		r.kept = append(r.kept, o)
	} else {
		r.write(o)
	}
	if err != nil {
		return (&problem{error: &journalError{err}, code: exitIncomplete}).
			hint("what is revoked and not in it is found to be revoked already by a later run, which is no failure")
	}
	return nil
}

// A journalError is an outcome that the journal lacks.
type journalError struct{ error }

func (e *journalError) Unwrap() error { return e.error }

// count counts an outcome, or takes it back.
func (r *report) count(o *outcome, n int) {
	r.counts[o.status] += n
	if o.done() || o.err == nil || errors.Is(o.err, errPlanned) {
		return
	}
	if r.causes[o.status] == nil {
		r.causes[o.status] = map[string]int{}
	}
	cause := causeOf(o.err)
	if r.causes[o.status][cause] += n; r.causes[o.status][cause] == 0 {
		delete(r.causes[o.status], cause)
	}
}

// causeOf is the text of an error that is the same for all that failed alike.
func causeOf(err error) string {
	if a, ok := asAnswer(err); ok {
		return fmt.Sprintf("%s (HTTP %d)", strings.TrimSuffix(a.text, "."), a.status)
	}
	return err.Error()
}

// prove looks up in what the CA has on record every certificate of the run, and
// those that the journal says are revoked, and writes what it finds. Its error
// has the code 3: what is revoked cannot be proven to be. Where nothing is known
// to be revoked it is 1.
func (r *report) prove(ctx context.Context, ca authority) error {
	found, lookErr := ca.Evidence(ctx)
	missing, accepted, listed, mayHaveExpired := 0, 0, 0, false
	each := func(o *outcome) {
		r.count(o, -1)
		if ctx.Err() != nil {
			lookErr = errInterrupted
		}
		lookErr = o.lookUp(ctx, found, lookErr)
		r.count(o, 1)
		if o.done() {
			accepted++
		}
		if o.record != nil {
			listed++
		}
		if o.done() && o.verified != nil && !*o.verified {
			missing++
			mayHaveExpired = mayHaveExpired || o.target.cert == nil
		}
		if lookErr == nil {
			r.sayVerified(o)
		}
		r.write(o)
	}
	if r.options.looks() {
		for i := range r.list {
			o := &outcome{target: &r.list[i], status: statusPlanned, time: time.Now().UTC()}
			r.count(o, 1)
			each(o)
		}
	}
	err := r.journal.outcomes(r.list, func(o *outcome) { r.count(o, 1); each(o) })
	for _, o := range r.kept {
		each(o)
	}
	r.kept = nil
	if err != nil && (lookErr != nil || missing > 0) {
		sayProblem(err)
	}
	switch {
	case lookErr != nil && accepted == 0:
		return passOn(lookErr, exitFailed, "what is on record cannot be looked up")
	case lookErr != nil:
		return passOn(lookErr, exitIncomplete, count(accepted, "revocation is", "revocations are")+" accepted, but not proven")
	case missing == 0:
		if r.many() && err == nil && listed > 0 {
			sayMarked(good, "%s on record as revoked", count(listed, "certificate is", "certificates are"))
		}
		return err
	}
	p := passOn(found.Missing(), exitIncomplete, count(missing, "revocation is", "revocations are")+" accepted, but not proven")
	if mayHaveExpired {
		p.hint("a CRL leaves out what expired more than an hour ago, which only --cert or --offline would show")
	}
	return p
}

// lookUp takes over what is on record about an outcome. Where that cannot be
// read, a mere look has found nothing out.
func (o *outcome) lookUp(ctx context.Context, found evidence, lookErr error) error {
	var on *record
	if lookErr == nil {
		on, lookErr = found.Lookup(ctx, o.target.serial.String())
	}
	switch {
	case lookErr == nil:
		o.setRecord(on)
	case o.status == statusPlanned:
		o.status, o.err = statusUnknown, lookErr
	}
	return lookErr
}

// conclude writes what is left to write and turns what has happened into the
// error that the run ends with.
func (r *report) conclude(ctx context.Context, err error) error {
	if len(r.counts) == 0 && err != nil && exitCode(err) != exitUsage {
		for i := range r.list {
			if r.options.json && !r.list[i].done {
				r.write(&outcome{target: &r.list[i], status: statusNotAttempted, err: err, authorizedBy: r.authorizedBy, time: time.Now().UTC()})
			}
		}
	} else if exitCode(err) != exitUsage && !r.options.verify && (r.options.json || r.options.dryRun) {
		err = cmp.Or(err, r.journal.outcomes(r.list, r.write))
	}
	r.saySummary()
	missing := r.counts[statusFailed]+r.counts[statusUnknown]+r.counts[statusNotAttempted] > 0
	switch {
	case ctx.Err() != nil:
		if err != nil && !errors.Is(err, errInterrupted) {
			sayProblem(err)
		}
		err = errInterrupted
	case missing && err != nil:
		sayProblem(err)
		fallthrough
	case missing:
		err = &problem{error: errReported, code: exitFailed}
	}
	if r.unwritten == nil {
		return err
	}
	lost := &problem{error: fmt.Errorf("writing the result: %w", r.unwritten), code: exitIncomplete}
	if err != nil {
		sayProblem(lost)
		return err
	}
	if r.options.dryRun {
		lost.code = exitFailed // it was all that was asked for
	}
	return lost
}

// write writes what standard output is to have of an outcome. A revocation that
// nobody can read of has happened all the same: conclude tells what is missing.
func (r *report) write(o *outcome) {
	var err error
	switch {
	case r.options.json:
		var line []byte
		if line, err = json.Marshal(o.object(r.options)); err == nil {
			err = printLine(printableJSON(line) + "\n")
		}
	case r.options.dryRun:
		err = r.writeRow(o)
	}
	r.unwritten = cmp.Or(r.unwritten, err)
}

// writeRow writes a row of the table that a dry run prints, and before the
// first one the table's head.
func (r *report) writeRow(o *outcome) error {
	head := []string{"SERIAL NUMBER", "STATUS", "REASON", "SUBJECT", "AUTHORIZED BY"}
	cells := []string{o.target.serial.String(), string(o.status), "", "", printable(o.authorizedBy)}
	if code, _, text, known := o.reason(r.options); known {
		cells[2] = printable(describeReason(code, text))
	}
	if cert := o.target.cert; cert != nil {
		cells[3] = printable(cert.subject)
	}
	if r.columns != nil {
		return printLine(r.row(cells))
	}
	// The table is not held back until all of it is known: so the columns are as
	// wide as what is known before.
	for _, title := range head {
		r.columns = append(r.columns, len(title))
	}
	for i, cell := range cells {
		r.columns[i] = max(r.columns[i], utf8.RuneCountInString(cell))
	}
	r.columns[1] = max(r.columns[1], len(statusAlreadyRevoked))
	for _, t := range r.list {
		r.columns[0] = max(r.columns[0], len(t.serial.String()))
		if t.cert != nil {
			r.columns[3] = max(r.columns[3], utf8.RuneCountInString(printable(t.cert.subject)))
		}
	}
	return printLine(r.row(head) + r.row(cells))
}

func (r *report) row(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		fmt.Fprintf(&b, "%-*s  ", r.columns[i], cmp.Or(cell, "-"))
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// sayOutcome prints what became of one certificate.
func (r *report) sayOutcome(o *outcome) {
	if r.many() {
		if o.status != statusFailed && o.status != statusUnknown {
			return
		}
		if r.told++; r.told > few/2 {
			if r.told == few/2+1 {
				sayMarked(warn, "further failures are counted from here on; --format json and --journal name each")
			}
			return
		}
	}
	serial := o.target.serial
	switch o.status {
	case statusRevoked:
		say("Certificate with Serial Number %s has been revoked.", serial)
	case statusAlreadyRevoked:
		say("Certificate with Serial Number %s was already revoked.", serial)
		if o.unanswered {
			say("hint: perhaps by an earlier attempt of this run, which got no clear answer")
		} else {
			say("hint: the reason on record is the one that was given then")
		}
		if o.crlStale {
			sayMarked(warn, "the CA failed after it had stored the revocation: its CRL may lack it until the next one")
		}
	case statusPlanned:
	case statusNotAttempted:
		if errors.As(o.err, new(notSent)) {
			sayProblem(fmt.Errorf("the certificate with serial number %s was not revoked: %w", serial, o.err))
			return
		}
		say("Certificate with Serial Number %s was not attempted.", serial)
	case statusUnknown:
		sayProblem(fmt.Errorf("it is not known whether the certificate with serial number %s is revoked: %w", serial, o.err))
		say("hint: run the same command again with a new token, if it had one: it says 'already revoked' if this went through; --dry-run --verify looks without revoking")
	default:
		sayProblem(fmt.Errorf("the certificate with serial number %s was not revoked: %w", serial, o.err))
	}
}

// sayRetry prints that an attempt will be repeated. Of many certificates that
// is said once a second.
func (r *report) sayRetry(j *job, wait time.Duration) {
	r.retries++
	if r.many() && time.Since(r.toldRetry) < time.Second {
		return
	}
	var others string
	if r.retries > 1 {
		others = fmt.Sprintf(" (and %s)", count(r.retries-1, "other", "others"))
	}
	sayMarked(warn, "serial number %s%s, attempt %d: %v; trying again in %s", j.target.serial, others, j.attempts, j.err, wait.Round(time.Millisecond))
	r.retries, r.toldRetry = 0, time.Now()
}

// sayVerified prints what is on record about one certificate, or of many what
// is not.
func (r *report) sayVerified(o *outcome) {
	where := "CRL"
	if r.options.offline {
		where = "database"
	}
	listed := o.record != nil && o.record.listed
	if r.many() {
		if listed || o.verified == nil {
			return
		}
		if r.told++; r.told > few/2 {
			return
		}
	}
	serial := o.target.serial
	if o.verified == nil {
		sayMarked(warn, "serial number %s need not be in the CA's CRL, and is not: the certificate has expired", serial)
	}
	switch {
	case o.record != nil && (listed || o.verified == nil):
		sayMarked(good, "serial number %s is on record as revoked at %s, reason %s", serial, stamp(o.record.time), reasonName(o.record.code))
	case o.record != nil:
		sayMarked(warn, "serial number %s is on record as revoked at %s, reason %s, but not in the CRL", serial, stamp(o.record.time), reasonName(o.record.code))
	case o.verified != nil:
		sayMarked(warn, "serial number %s is not on record as revoked in the CA's %s", serial, where)
	}
}

// saySummary prints how a batch of several went.
func (r *report) saySummary() {
	total := 0
	for _, n := range r.counts {
		total += n
	}
	if len(r.list) < 2 || total == 0 {
		return
	}
	var parts []string
	for _, part := range []struct {
		status status
		name   string
		always bool
	}{
		{statusPlanned, "planned", false},
		{statusRevoked, "revoked", !r.options.dryRun},
		{statusAlreadyRevoked, "already revoked", !r.options.dryRun},
		{statusFailed, "failed", !r.options.dryRun},
		{statusUnknown, "unknown", false},
		{statusNotAttempted, "not attempted", !r.options.dryRun},
	} {
		if n := r.counts[part.status]; n > 0 || part.always {
			parts = append(parts, humanize.Comma(int64(n))+" "+part.name)
		}
	}
	line := fmt.Sprintf("%s: %s", count(total, "certificate", "certificates"), strings.Join(parts, ", "))
	if r.progress != nil && !r.options.dryRun {
		elapsed := r.progress.elapsed()
		line += fmt.Sprintf("; %s, %s/s", elapsed.Round(10*time.Millisecond), perSecond(r.progress.done, elapsed))
	}
	say("%s.", line)
	for _, s := range []status{statusFailed, statusUnknown, statusNotAttempted} {
		causes := r.causes[s]
		sorted := slices.SortedFunc(maps.Keys(causes), func(a, b string) int { return cmp.Or(causes[b]-causes[a], cmp.Compare(a, b)) })
		for i, cause := range sorted {
			if i == few/2 {
				say("  and %s", count(len(sorted)-i, "other cause", "other causes"))
				break
			}
			say("  %s %s: %s", humanize.Comma(int64(causes[cause])), strings.ReplaceAll(string(s), "-", " "), cause)
		}
	}
}

// perSecond is a rate for a person.
func perSecond(n int, elapsed time.Duration) string {
	rate := float64(n) / max(elapsed.Seconds(), 1e-3)
	if rate < 10 {
		return fmt.Sprintf("%.1f", rate)
	}
	return humanize.Comma(int64(rate))
}
