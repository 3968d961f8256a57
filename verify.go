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
}

// evidence is what a CA has on record, at one moment.
type evidence interface {
	// Lookup finds the record of a serial number in decimal.
	Lookup(serial string) (r record, found bool, err error)
	// String names the evidence.
	String() string
	// Missing says why something is not in it, and when it will be.
	Missing() string
}

// crlGrace is how long after its expiry step-ca keeps a certificate in its CRL
// (authority/config, DefaultCRLExpiredDuration).
const crlGrace = time.Hour

// verify looks every outcome up in what the CA has on record. The error means
// that a revocation could not be proven; the revocation itself stands.
func verify(ctx context.Context, ca authority, outcomes []*outcome) error {
	found, err := ca.Evidence(ctx)
	if err != nil {
		return incomplete("the revocations are accepted but cannot be verified: %w", err)
	}
	missing := 0
	for _, o := range outcomes {
		r, ok, err := found.Lookup(o.target.serial.String())
		switch {
		case err != nil:
			return incomplete("the revocations are accepted but cannot be verified: %w", err)
		case ok:
			o.setRecord(&r)
		case o.status == statusPlanned || !o.done():
			o.setRecord(nil)
		case o.expired():
			sayMarked(warn, "serial number %s is not in %s and need not be: the certificate has expired", o.target.serial, found)
		default:
			o.setRecord(nil)
			missing++
		}
	}
	if missing > 0 {
		return incomplete("%d of %d revocations are accepted but not in %s", missing, len(outcomes), found).hint("%s", found.Missing())
	}
	return nil
}

// setRecord takes over what is on record, or that nothing is.
func (o *outcome) setRecord(r *record) {
	verified := r != nil
	o.verified, o.record = &verified, r
	if verified && !o.done() {
		o.status, o.err = statusAlreadyRevoked, nil
	}
}

// expired tells whether the certificate is known to have expired so long ago
// that a CRL need not list it.
func (o *outcome) expired() bool {
	return o.target.cert != nil && time.Now().After(o.target.cert.NotAfter.Add(crlGrace))
}

// incomplete is a problem with what was to come after the revocations.
func incomplete(format string, args ...any) *problem {
	return &problem{error: fmt.Errorf(format, args...), code: exitIncomplete}
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
		return nil, fmt.Errorf("the CRL is out of date since %s", list.NextUpdate.UTC().Format(time.RFC3339))
	}
	entries := make(map[string]record, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		entries[e.SerialNumber.String()] = record{code: e.ReasonCode, time: e.RevocationTime}
	}
	return &signedList{list, entries}, nil
}

func (l *signedList) Lookup(serial string) (r record, found bool, err error) {
	r, found = l.entries[serial]
	return r, found, nil
}

func (l *signedList) String() string {
	return fmt.Sprintf("the CA's CRL (number %v, of %s)", l.list.Number, l.list.ThisUpdate.UTC().Format(time.RFC3339))
}

func (l *signedList) Missing() string {
	return fmt.Sprintf("the CA makes its next CRL by %s at the latest; --dry-run --verify looks again", l.list.NextUpdate.UTC().Format(time.RFC3339))
}
