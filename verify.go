package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A record is what is on record about a revoked certificate.
type record struct {
	code   int       // of RFC 5280
	reason string    // free text, if known
	time   time.Time // of the revocation
	listed bool      // in the CRL, where others find it
}

// evidence is what a CA has on record, at one moment.
type evidence interface {
	// Lookup finds the record of a serial number in decimal; nil is none.
	Lookup(serial string) (*record, error)
	// Missing says why something is not in the CRL, and when it will be.
	Missing() error
}

// crlGrace is how long after its expiry step-ca keeps a certificate in its CRL
// (authority/config, DefaultCRLExpiredDuration).
const crlGrace = time.Hour

const noCRLHint = "\"crl\" in its ca.json turns CRLs on; without one only the CA knows, and does not renew the certificate"

// verify looks every outcome up in what the CA has on record. Its error has the
// code 3: what is revoked cannot be proven to be. Where nothing is known to be
// revoked it is 1.
func verify(ctx context.Context, ca authority, outcomes []*outcome) error {
	found, err := ca.Evidence(ctx)
	if err != nil {
		return unproven(outcomes, err)
	}
	missing, mayHaveExpired := 0, false
	for _, o := range outcomes {
		r, err := found.Lookup(o.target.serial.String())
		if err != nil {
			return unproven(outcomes, err)
		}
		o.setRecord(r)
		if o.verified == nil {
			sayMarked(warn, "serial number %s need not be in the CA's CRL, and is not: the certificate has expired", o.target.serial)
		}
		if o.done() && o.verified != nil && !*o.verified {
			missing++
			mayHaveExpired = mayHaveExpired || o.target.cert == nil
		}
	}
	if missing == 0 {
		return nil
	}
	p := passOn(found.Missing(), exitIncomplete, count(missing)+" accepted, but not proven")
	if mayHaveExpired {
		p.hint("a CRL leaves out what expired more than an hour ago, which only --cert or --offline would show")
	}
	return p
}

// unproven is the problem that nothing could be looked up.
func unproven(outcomes []*outcome, err error) *problem {
	accepted := 0
	for _, o := range outcomes {
		switch {
		case o.done():
			accepted++
		case o.status == statusPlanned:
			o.status, o.err = statusUnknown, err // nobody has looked
		}
	}
	if accepted == 0 {
		return passOn(err, exitFailed, "what is on record cannot be looked up")
	}
	return passOn(err, exitIncomplete, count(accepted)+" accepted, but not proven")
}

// passOn says what an error means here, and keeps its hints.
func passOn(err error, code int, what string) *problem {
	p := &problem{error: fmt.Errorf("%s: %w", what, err), code: code}
	var inner *problem
	if errors.As(err, &inner) {
		p.hints = slices.Clone(inner.hints)
	}
	return p
}

// count is a number of revocations, with its verb.
func count(n int) string {
	if n == 1 {
		return "1 revocation is"
	}
	return fmt.Sprintf("%d revocations are", n)
}

// setRecord takes over what is on record, or that nothing is. What a CRL need
// not list, and does not, says nothing.
func (o *outcome) setRecord(r *record) {
	o.record = r
	if r != nil && !o.done() {
		o.status, o.err = statusAlreadyRevoked, nil
	}
	if listed := r != nil && r.listed; listed || !o.expired() {
		o.verified = &listed
	}
}

// expired tells whether the certificate is known to have expired so long ago
// that a CRL need not list it.
func (o *outcome) expired() bool {
	return o.target.cert != nil && time.Now().After(o.target.cert.NotAfter.Add(crlGrace))
}

// A signedList is a CRL (RFC 5280, section 5).
type signedList struct {
	list    *x509.RevocationList
	entries map[string]record
}

// readCRL reads a CRL that one of the issuers must have signed, and that must
// not be out of date.
func readCRL(der []byte, issuers []*x509.Certificate) (*signedList, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	signed := slices.ContainsFunc(issuers, func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil })
	switch now := time.Now(); {
	case !signed:
		return nil, errors.New("the CRL is not signed by this CA")
	case now.After(list.NextUpdate):
		return nil, fmt.Errorf("the CRL is out of date since %s", stamp(list.NextUpdate))
	}
	entries := make(map[string]record, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		entries[e.SerialNumber.String()] = record{code: e.ReasonCode, time: e.RevocationTime, listed: true}
	}
	return &signedList{list, entries}, nil
}

func (l *signedList) Lookup(serial string) (*record, error) {
	if r, ok := l.entries[serial]; ok {
		return &r, nil
	}
	return nil, nil
}

func (l *signedList) Missing() error {
	return failf("the CA's CRL, number %v of %s, does not have it yet", l.list.Number, stamp(l.list.ThisUpdate)).
		hint("the CA makes its next CRL by %s; --dry-run --verify looks again", stamp(l.list.NextUpdate))
}

// stamp is a time as people and programs read it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
