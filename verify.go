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
	Lookup(ctx context.Context, serial string) (*record, error)
	// Missing says why something is not in the CRL, and when it will be.
	Missing() error
}

// crlGrace is how long after its expiry step-ca keeps a certificate in its CRL
// (authority/config, DefaultCRLExpiredDuration).
const crlGrace = time.Hour

const noCRLHint = "\"crl\" in its ca.json turns CRLs on; without one only the CA knows, and does not renew the certificate"

// passOn says what an error means here, and keeps its hints.
func passOn(err error, code int, what string) *problem {
	p := &problem{error: fmt.Errorf("%s: %w", what, err), code: code}
	var inner *problem
	if errors.As(err, &inner) {
		p.hints = slices.Clone(inner.hints)
	}
	return p
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

func (l *signedList) Lookup(_ context.Context, serial string) (*record, error) {
	if r, ok := l.entries[serial]; ok {
		return &r, nil
	}
	return nil, nil
}

func (l *signedList) Missing() error {
	return failf("the CA's CRL, number %v of %s, does not have it yet", l.list.Number, stamp(l.list.ThisUpdate)).
		hint("the CA makes its next CRL by %s; --dry-run --verify looks again", stamp(l.list.NextUpdate))
}
