package main

import (
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// scopes are what OpenSSL does with the CRL for the certificates at hand. It is
// told once a run: the CA's configuration decides it, for many of them at once.
type scopes struct{ fit, unfit, unknown tally }

// A tally is how many certificates have the same fate, and the first of them.
type tally struct {
	n     int
	first *revocation.Outcome
	fit   revocation.Fit
	err   error // why that is not known
}

// compare notes whether OpenSSL can use the CRL for a certificate.
func (s *scopes) compare(o *revocation.Outcome, crl *revocation.CRL) {
	fit, atHand, err := o.SetFit(crl)
	t := &s.fit
	switch {
	case !atHand:
		return
	case err != nil:
		t = &s.unknown
	case fit.Error != "":
		t = &s.unfit
	}
	if t.n++; t.n == 1 {
		t.first, t.fit, t.err = o, fit, err
	}
}

// say prints one line, the worst news, if there is any.
func (s *scopes) say() {
	const openssl = "openssl verify -crl_check"
	all := s.fit.n + s.unfit.n + s.unknown.n
	of := func(t tally) (share, example string) {
		if all == 1 {
			return "", ""
		}
		return " for " + ui.Number(t.n) + " of " + ui.Count(all, "certificate", "certificates"), "for serial number " + t.first.Target.Serial.String() + " "
	}
	switch {
	case s.unfit.n > 0:
		share, example := of(s.unfit)
		if s.unknown.n > 0 {
			share += " (of " + ui.Number(s.unknown.n) + " it is not known)"
		}
		ui.Warn("%s cannot use the CRL%s; %sit fails with %q: %s", openssl, share, example, s.unfit.fit.Error, s.unfit.fit.Why)
	case s.unknown.n > 0:
		share, example := of(s.unknown)
		ui.Warn("it is not known whether %s can use the CRL%s; %s%v", openssl, share, example, s.unknown.err)
	case s.fit.n > 0:
		share, _ := of(s.fit)
		ui.Good("%s can use the CRL%s: %s", openssl, share, s.fit.fit.Why)
	}
}
