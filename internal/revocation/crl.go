package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// ErrNoCRL is why there is no evidence of a CA without CRLs.
var ErrNoCRL = errors.New("the CA has no CRL")

// NoCRLHint is for CAs without CRLs.
const NoCRLHint = "\"crl\" in its ca.json turns CRLs on; without one only the CA knows, and does not renew the certificate"

// A CRL is a certificate revocation list (RFC 5280, section 5) as evidence. It
// takes little more memory than its DER: as values of crypto/x509, a million
// entries would take half a gigabyte.
type CRL struct {
	parts
	list  *x509.RevocationList // without entries
	scope scope
	index index
}

// ReadCRL reads a CRL in DER. One of the issuers must have signed it, it must not
// be out of date, and it must be about all certificates of users.
func ReadCRL(der []byte, issuers []*x509.Certificate) (*CRL, error) {
	p, err := split(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	l := &CRL{parts: p}
	if l.list, err = l.with(nil); err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	l.list.RawTBSRevocationList = l.signed
	signed := slices.ContainsFunc(issuers, func(c *x509.Certificate) bool { return l.list.CheckSignatureFrom(c) == nil })
	switch now := time.Now(); {
	case !signed:
		return nil, errors.New("the CRL is not signed by this CA")
	case l.list.Number == nil || l.list.Number.BitLen() > 20*8:
		return nil, errors.New("the CRL's number is missing, or longer than 20 octets (RFC 5280)")
	case now.After(l.list.NextUpdate):
		return nil, fmt.Errorf("the CRL has been out of date since %s", Stamp(l.list.NextUpdate))
	}
	if l.scope, err = readScope(l.list); err != nil {
		return nil, err
	}
	if l.index, err = l.indexed(); err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	return l, nil
}

// NumberOf returns the number of a CRL in DER. Nobody has verified that: it says that
// another CRL was made, and nothing more.
func NumberOf(der []byte) (*big.Int, error) {
	p, err := split(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	list, err := p.with(nil)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	if list.Number == nil {
		return nil, errors.New("the CRL has no number")
	}
	return list.Number, nil
}

// codeOf returns the reason code of an entry. An entry without the extension,
// which crypto/x509 reads as 0, does not say: it may be unspecified (RFC 5280,
// section 5.3.1), or the CRL of a step-ca before 0.30, which leaves all reasons
// out.
func codeOf(e x509.RevocationListEntry) *int {
	if e.ReasonCode == 0 {
		return nil
	}
	return &e.ReasonCode
}

// Find returns the record of a certificate, or nil if it is not listed.
func (l *CRL) Find(_ context.Context, serial target.Serial) (*Record, error) {
	entry := l.find(l.index, serial)
	if entry == nil {
		return nil, nil
	}
	list, err := l.with(entry)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL's entry of serial number %s: %w", serial, err)
	}
	e := list.RevokedCertificateEntries[0]
	return &Record{Code: codeOf(e), Time: e.RevocationTime, Listed: true}, nil
}

// Lists tells whether the CRL has a certificate.
func (l *CRL) Lists(serial target.Serial) bool { return l.find(l.index, serial) != nil }

// CRL returns the CRL itself.
func (l *CRL) CRL() *CRL { return l }

// Cleared returns nil unless the CRL has a certificate.
func (l *CRL) Cleared(serial target.Serial) error {
	if !l.Lists(serial) {
		return nil
	}
	return problem.New("the CA's CRL, number %s, still has it", l.Number())
}

// Number names the CRL for a person: its number, and when it was made.
func (l *CRL) Number() string {
	return fmt.Sprintf("%v of %s", l.list.Number, Stamp(l.list.ThisUpdate))
}

// WhyMissing says that the certificate is not in this CRL yet.
func (l *CRL) WhyMissing() error {
	return problem.New("not yet in the CA's CRL, number %s", l.Number()).
		Hint("the CA makes its next CRL by %s; --dry-run --verify looks again", Stamp(l.list.NextUpdate))
}

// Stamp writes a time as people and programs read it (RFC 3339, UTC).
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
