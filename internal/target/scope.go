package target

import (
	"crypto/x509"
	"encoding/asn1"
	"unique"
)

// A Scope is what a certificate says about the CRLs that are for it. Certificates
// of one CA often have the same one, and share it then.
type Scope struct {
	Issuer string // the issuer's name, in DER
	KeyID  string // of the issuer's key; empty: the certificate does not say
	Points string // the CRL distribution points (RFC 5280, section 4.2.1.13), in DER; empty: it has none
	IsCA   bool
}

// maxPoints bounds what is kept of the distribution points of a certificate, in
// bytes. Cut, they cannot be read.
const maxPoints = 4 << 10

var oidDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}

func scopeOf(cert *x509.Certificate) unique.Handle[Scope] {
	s := Scope{Issuer: string(cert.RawIssuer), KeyID: string(cert.AuthorityKeyId), IsCA: cert.IsCA}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidDistributionPoints) {
			s.Points = string(e.Value[:min(len(e.Value), maxPoints)])
		}
	}
	return unique.Make(s)
}

// Scope returns what the certificate says about CRLs, if that is known.
func (c *Certificate) Scope() (s Scope, known bool) {
	if c == nil || c.scope == (unique.Handle[Scope]{}) {
		return s, false
	}
	return c.scope.Value(), true
}
