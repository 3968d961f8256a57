package main

import (
	"context"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// sayAftermath says what a revocation leaves open, once a run and to a person: until
// when others accept the certificate, whether it is one of this CA at all, and that
// its renewals are other certificates. A large batch is told nothing, nor
// one in which something has failed.
func (r *report) sayAftermath(ctx context.Context) {
	if r.counts[revocation.Revoked] == 0 || r.notDone() > 0 || r.options.json || r.many() || ctx.Err() != nil {
		return
	}
	if text := r.acceptance(time.Now()); text != "" {
		ui.Hint(text)
	}
	// Offline sayBeside has looked for them, and --where chooses by what they share.
	if o := r.options; !o.query.IsSet() && (o.offline == nil || len(o.targets.From) > 0) {
		key := "FILE"
		if len(o.targets.Certs) == 1 && len(r.list.All) == 1 {
			key = shellQuote(o.targets.Certs[0])
		}
		ui.Hint("a renewal is a separate certificate: on the CA's host --where key=" + key + " finds it")
	}
}

// acceptance says until when others accept what is revoked, or nothing if all of it
// has expired.
func (r *report) acceptance(now time.Time) string {
	end, unknown, left := time.Time{}, 0, 0
	for i := range r.list.All {
		c := r.list.All[i].Cert
		switch {
		case c == nil || c.NotAfter.IsZero():
			unknown++
		case c.NotAfter.After(now):
			left++
		}
		if c != nil && c.NotAfter.After(end) {
			end = c.NotAfter
		}
	}
	it, expires, number := "it", "it expires", "this number"
	if unknown+left > 1 {
		it, expires = "them", "they expire"
	}
	if unknown > 1 {
		number = "these numbers"
	}
	text := "others accept " + it + " until "
	switch {
	case unknown+left == 0:
		return ""
	case unknown > 0:
		text += expires
	default:
		text += revocation.Stamp(end)
	}
	if unknown > 0 && r.options.offline == nil {
		text = "the CA does not say whether it ever issued " + number + "; if so, " + text
	}
	return text + r.unless()
}

// unless says whether others can learn of a revocation, as far as this run knows.
func (r *report) unless() string {
	known, has := r.hasCRL != nil, r.hasCRL != nil && *r.hasCRL
	if s := r.options.settings; s != nil {
		known, has = true, s.CA.CRL.IsEnabled()
	}
	switch {
	case has:
		return ", unless they check the CA's CRL"
	case known:
		return ": the CA has no CRL"
	}
	return ", unless they check a CRL"
}
