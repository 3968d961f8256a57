package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A verification compares what a run has revoked with what the CA has on record.
type verification struct {
	*report
	evidence       revocation.Evidence
	err            error // why the evidence cannot be read
	done           int   // certificates that are known to be revoked, or released
	found          int   // certificates that are on record as revoked
	held           int   // of these, on hold
	missing        int   // certificates that are revoked, but not in the CRL
	released       int   // certificates that are on record no more, nor in the CRL
	listed         int   // certificates that are released, but may still be in the CRL
	whyListed      error // of the first of them
	mayHaveExpired bool  // one of these, of which only the serial number is known
	scope          scopes
}

// verify looks up every certificate of the run, and those that the journal says
// are revoked, and writes what it finds. The code of its error is 4: what is
// revoked cannot be proven to be. It is 1 if nothing is known to be revoked.
func (r *report) verify(ctx context.Context, ca authority) error {
	v := &verification{report: r}
	if v.evidence, v.err = ca.Evidence(ctx); v.err == nil || errors.Is(v.err, revocation.ErrNoCRL) {
		has := v.err == nil
		r.hasCRL = &has
		if r.records != nil {
			v.evidence, v.err = recorded{records: r.records, crl: v.evidence, noCRL: v.err}, nil
		}
	}
	if r.options.looksOnly() {
		unless := revocation.NotListed
		if v.asksDatabase() {
			unless = revocation.NotRevoked
		}
		for i := range r.list.All {
			o := &revocation.Outcome{Target: &r.list.All[i], Answer: revocation.Answer{Status: unless}, Time: time.Now().UTC()}
			r.count(o, 1)
			v.look(ctx, o)
		}
	}
	for i := range r.before {
		o := &revocation.Outcome{Target: &r.before[i], Answer: revocation.Answer{Status: revocation.AlreadyRevoked}, Time: time.Now().UTC()}
		r.count(o, 1)
		v.look(ctx, o)
	}
	r.fromJournal = true
	err := r.journal.Outcomes(r.list, func(o *revocation.Outcome) {
		r.count(o, 1)
		v.look(ctx, o)
	})
	for len(r.kept) > 0 {
		o := r.kept[0]
		r.kept = r.kept[1:]
		v.look(ctx, o)
	}
	v.scope.say()
	verdict := v.verdict()
	if err == nil && verdict == nil && r.many() && v.found > 0 {
		var holds string
		if v.held > 0 {
			holds = ", " + ui.Number(v.held) + " of them on hold"
		}
		ui.Good("%s on record as revoked%s", ui.Count(v.found, "certificate is", "certificates are"), holds)
	}
	if err == nil && verdict == nil && r.many() && v.released > 0 {
		ui.Good("%s no longer on record as revoked", ui.Count(v.released, "certificate is", "certificates are"))
	}
	return errors.Join(err, verdict)
}

// asksDatabase tells whether the CA's database has the answer, and not its CRL alone.
func (v *verification) asksDatabase() bool { return v.options.offline != nil || v.records != nil }

// look takes over what is on record about one certificate, and writes it. If
// that cannot be read, a mere look has found out nothing.
func (v *verification) look(ctx context.Context, o *revocation.Outcome) {
	v.count(o, -1)
	if v.err == nil && ctx.Err() != nil {
		v.err = problem.ErrInterrupted
	}
	var record *revocation.Record
	if v.err == nil {
		record, v.err = v.evidence.Find(ctx, o.Target.Serial)
	}
	released := o.Status == revocation.Released
	if v.err == nil && released {
		listed := v.evidence.Cleared(o.Target.Serial)
		o.SetReleased(record, listed)
		v.countReleased(record, listed)
	} else if v.err == nil {
		if record == nil && o.Status.Done() && v.options.offline != nil { // the database is the truth
			o.Answer = revocation.Answer{Status: revocation.Failed, Err: errors.New("the CA's database does not have its revocation")}
		}
		o.SetRecord(record)
	} else if o.Status.Open() {
		o.Status, o.Err = revocation.Unknown, v.err
	}
	v.count(o, 1)
	if o.Status.Done() {
		v.done++
	}
	if o.Record != nil {
		v.found++
		if o.Record.IsHold() {
			v.held++
		}
	}
	if !released && o.Status.Done() && o.Verified != nil && !*o.Verified {
		v.missing++
		v.mayHaveExpired = v.mayHaveExpired || o.Target.Cert == nil || o.Target.Cert.NotAfter.IsZero()
	}
	if v.err == nil {
		v.scope.compare(o, v.evidence.CRL())
		v.say(o)
	}
	v.write(o)
}

// countReleased notes what is on record of a certificate that was released.
func (v *verification) countReleased(record *revocation.Record, listed error) {
	switch {
	case record != nil:
	case listed == nil:
		v.released++
	default:
		v.listed++
		v.whyListed = cmp.Or(v.whyListed, listed)
	}
}

// say prints what is on record about one certificate. Of many certificates it
// prints only the first ones that are missing.
func (v *verification) say(o *revocation.Outcome) {
	listed := o.Record != nil && o.Record.Listed
	if v.many() {
		if listed || o.Verified == nil || *o.Verified {
			return
		}
		if v.told++; v.told > fewTargets/2 {
			return
		}
	}
	serial := o.Target.Serial
	if o.Status == revocation.Released {
		if *o.Verified {
			ui.Good("serial number %s is no longer on record as revoked", serial)
		} else {
			ui.Warn("serial number %s is no longer on record as revoked, but may still be in the CRL", serial)
		}
		return
	}
	if o.Verified == nil {
		ui.Warn("serial number %s need not be in the CA's CRL, and is not: the certificate has expired", serial)
	}
	switch {
	case o.Record != nil && (listed || o.Verified == nil):
		ui.Good("serial number %s is on record as revoked at %s", serial, describe(o.Record))
	case o.Record != nil:
		ui.Warn("serial number %s is on record as revoked at %s, but not in the CRL", serial, describe(o.Record))
	case o.Verified != nil && v.asksDatabase():
		ui.Warn("serial number %s is not on record as revoked in the CA's database", serial)
	case o.Verified != nil:
		ui.Warn("serial number %s is not on record as revoked in the CA's CRL", serial)
	}
}

// describe says when and why a record says that a certificate was revoked, and
// that it is on hold. Not every CRL gives reasons.
func describe(r *revocation.Record) string {
	text := revocation.Stamp(r.Time)
	if r.Code != nil {
		text += ", reason " + reasonName(*r.Code)
	}
	if r.IsHold() {
		text += " (it is on hold)"
	}
	return text
}

// verdict says what is not proven.
func (v *verification) verdict() error {
	if v.err != nil && v.done == 0 {
		return problem.Default(problem.Wrap(v.err, "what is on record cannot be looked up"), problem.Failed)
	}
	number, why := v.missing, v.err
	switch {
	case v.err != nil:
		number = v.done
	case v.missing > 0:
		why = v.evidence.WhyMissing()
	case v.listed > 0:
		number, why = v.listed, v.whyListed
	}
	if why == nil {
		return nil
	}
	one, many := "revocation is", "revocations are"
	if v.releases() {
		one, many = "release is", "releases are"
	}
	p := problem.Wrap(why, "%s accepted, but not proven", ui.Count(number, one, many))
	if v.mayHaveExpired && v.err == nil {
		p = p.Hint("a CRL leaves out what expired more than an hour ago, which only --cert or --offline would show")
	}
	return problem.Default(p, problem.Incomplete)
}

// recorded is the evidence of a look at a CA that is online and whose database was
// read before: what that had then, and what has come into the CRL since.
type recorded struct {
	records
	crl   revocation.Evidence // nil if there is none
	noCRL error               // why there is none
}

// Find returns the record of a certificate, or nil if there is none.
func (e recorded) Find(ctx context.Context, serial target.Serial) (*revocation.Record, error) {
	record := e.records[serial]
	if e.crl == nil {
		return record, nil
	}
	listed, err := e.crl.Find(ctx, serial)
	if record == nil || err != nil {
		return listed, err
	}
	record.Listed = listed != nil
	return record, nil
}

// CRL returns the CA's CRL, or nil if there is none.
func (e recorded) CRL() *revocation.CRL {
	if e.crl == nil {
		return nil
	}
	return e.crl.CRL()
}

// WhyMissing says why a revoked certificate is not in the CRL.
func (e recorded) WhyMissing() error {
	if e.crl == nil {
		return e.noCRL
	}
	return e.crl.WhyMissing()
}

// Cleared is for what a run has released, which no look has.
func (e recorded) Cleared(target.Serial) error { return nil }

// setReason gives an outcome the reason that is on record: what was read or, if
// that does not say, what the CA has just confirmed or would be asked to record.
// An older revocation may have any reason.
func (r *report) setReason(o *revocation.Outcome) {
	o.Reason = nil
	if o.Held {
		o.Previous = reasonName(revocation.CertificateHold)
	}
	ours := o.Status == revocation.Revoked || o.Status == revocation.Planned
	if ours {
		o.Reason = &r.reason
	}
	if o.Record != nil && o.Record.Code != nil {
		reason := revocation.Reason{Code: *o.Record.Code, Name: reasonName(*o.Record.Code), Text: o.Record.Text}
		if ours {
			reason.Text = cmp.Or(reason.Text, r.reason.Text) // a CRL has no text
		}
		o.Reason = &reason
	}
}
