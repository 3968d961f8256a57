package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// NoCRLHint is for CAs without CRLs.
const NoCRLHint = "\"crl\" in its ca.json turns CRLs on; without one only the CA knows, and does not renew the certificate"

// A CRL is a certificate revocation list (RFC 5280, section 5) as evidence.
type CRL struct {
	list    *x509.RevocationList
	entries map[target.Serial]Record
}

// ReadCRL reads a CRL in DER. One of the issuers must have signed it, and it
// must not be out of date.
func ReadCRL(der []byte, issuers []*x509.Certificate) (*CRL, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	signed := slices.ContainsFunc(issuers, func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil })
	switch now := time.Now(); {
	case !signed:
		return nil, errors.New("the CRL is not signed by this CA")
	case now.After(list.NextUpdate):
		return nil, fmt.Errorf("the CRL is out of date since %s", Stamp(list.NextUpdate))
	}
	entries := make(map[target.Serial]Record, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		if serial, ok := target.SerialOf(e.SerialNumber); ok {
			entries[serial] = Record{Code: codeOf(e), Time: e.RevocationTime, Listed: true}
		}
	}
	return &CRL{list: list, entries: entries}, nil
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
	if r, ok := l.entries[serial]; ok {
		return &r, nil
	}
	return nil, nil
}

// Lists tells whether the CRL has a certificate.
func (l *CRL) Lists(serial target.Serial) bool {
	_, ok := l.entries[serial]
	return ok
}

// Number names the CRL for a person: its number, and when it was made.
func (l *CRL) Number() string {
	return fmt.Sprintf("%v of %s", l.list.Number, Stamp(l.list.ThisUpdate))
}

// WhyMissing says that the certificate is not in this CRL yet.
func (l *CRL) WhyMissing() error {
	return problem.New("the CA's CRL, number %s, does not have it yet", l.Number()).
		Hint("the CA makes its next CRL by %s; --dry-run --verify looks again", Stamp(l.list.NextUpdate))
}

// Stamp writes a time as people and programs read it (RFC 3339, UTC).
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
