// Package target is what to revoke: serial numbers, the certificates behind
// them, and the lists that name them.
package target

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/dustin/go-humanize"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A Target is one certificate to revoke. It is small, because there may be a
// million of them.
type Target struct {
	Serial Serial
	Done   bool         // the journal says that it is revoked, or released if that is asked for
	Cert   *Certificate // nil: only the serial number is known
}

// A Certificate is what is known about the certificate of a target.
type Certificate struct {
	Subject             string
	SANs                []string             // in their text form, as people write them
	NotBefore, NotAfter time.Time            // zero: nobody has checked them
	Provisioner         string               // its name; empty: it is not known
	scope               unique.Handle[Scope] // zero: it is not known
	source              string               // where it comes from, for messages
	der                 []byte               // nil if it is known, or of no interest, whose it is
}

// CertificateOf returns what is to be known about a certificate of the CA.
func CertificateOf(cert *x509.Certificate) *Certificate {
	provisioner, _ := provisionerOf(cert)
	return &Certificate{
		Subject: cert.Subject.String(), SANs: sansOf(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Provisioner: provisioner, scope: scopeOf(cert),
	}
}

// sansOf returns the subject alternative names of a certificate.
func sansOf(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// A List is what is to be revoked, in the order in which it was named, each once.
// With its index a million serial numbers take some 90 MB. It is not safe for
// concurrent use.
type List struct {
	All   []Target
	Chain []*x509.Certificate // in the last file of Sources.Certs, the leaf first
	index map[Serial]uint32   // of All; nil until it is needed
	parts []part              // what files of Sources.From have added
	lines []uint32            // of these files, for each target from the first part on
}

// Add adds a target, unless it is there. Then it only completes what is known
// about it: c may be nil.
func (l *List) Add(s Serial, c *Certificate) (isNew bool) {
	if t, found := l.Find(s); found {
		if t.Cert == nil {
			t.Cert = c
		}
		return false
	}
	l.index[s] = uint32(len(l.All))
	l.All = append(l.All, Target{Serial: s, Cert: c})
	return true
}

// checkSame makes sure that the list has no other certificate with this serial
// number. step-ca gives each number once, so one of the two is not the CA's.
func (l *List) checkSame(s Serial, c *Certificate) error {
	if c == nil {
		return nil
	}
	t, found := l.Find(s)
	if !found || t.Cert == nil || t.Cert.der == nil || bytes.Equal(t.Cert.der, c.der) {
		return nil
	}
	return problem.New("the certificates in %s and %s have the same serial number, %s, but are not the same",
		strings.TrimSuffix(t.Cert.source, ","), c.source, s).
		Hint("at most one of them is the CA's: leave out the other")
}

// Find returns the target with this serial number. The pointer is good until
// the next Add.
func (l *List) Find(s Serial) (*Target, bool) {
	if l.index == nil {
		l.index = make(map[Serial]uint32, len(l.All))
		for i := range l.All {
			l.index[l.All[i].Serial] = uint32(i)
		}
	}
	i, found := l.index[s]
	if !found {
		return nil, false
	}
	return &l.All[i], true
}

// Keep drops the targets for which keep is false.
func (l *List) Keep(keep func(Target) bool) {
	l.All, l.index = slices.DeleteFunc(l.All, func(t Target) bool { return !keep(t) }), nil
	l.parts, l.lines = nil, nil
}

// DropIndex frees the memory that finding targets takes. Add and Find build the
// index again.
func (l *List) DropIndex() { l.index = nil }

// Digest returns a SHA-256 of the serial numbers in ascending order, in decimal,
// a line each: what "sort -n serials.txt | sha256sum" prints.
func (l *List) Digest() string {
	serials := make([]Serial, len(l.All))
	for i := range l.All {
		serials[i] = l.All[i].Serial
	}
	slices.SortFunc(serials, func(a, b Serial) int { return bytes.Compare(a[:], b[:]) })
	sum := sha256.New()
	for _, serial := range serials {
		fmt.Fprintln(sum, serial)
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil))
}

// HasCertificates tells whether the list holds certificates that CheckIssued
// would check.
func (l *List) HasCertificates() bool {
	return slices.ContainsFunc(l.All, func(t Target) bool { return t.Cert != nil && t.Cert.der != nil })
}

// DropCertificates frees the memory of the certificates themselves where nobody
// is to check them. Their subjects and names stay, to tell them apart; the
// rest does not, because nothing may follow from it.
func (l *List) DropCertificates() {
	for i := range l.All {
		if known := l.All[i].Cert; known != nil {
			*known = Certificate{Subject: known.Subject, SANs: known.SANs, source: known.source}
		}
	}
}

// CheckIssued makes sure that one of the issuers has signed every certificate,
// and drops the certificates as DropCertificates does. An expired one counts, too.
func (l *List) CheckIssued(issuers []*x509.Certificate) error {
	var first *problem.Problem
	others := 0
	for i := range l.All {
		known := l.All[i].Cert
		if known == nil || known.der == nil {
			continue
		}
		cert, err := x509.ParseCertificate(known.der)
		if err != nil {
			return fmt.Errorf("the certificate in %s: %w", known.source, err)
		}
		known.der = nil
		switch {
		case slices.ContainsFunc(issuers, func(issuer *x509.Certificate) bool { return isIssuedBy(cert, issuer) }):
		case first == nil:
			first = problem.New("the certificate in %s was not issued by this CA but by %q", known.source, cert.Issuer)
		default:
			others++
		}
	}
	if first == nil {
		return nil
	}
	if others > 0 {
		first = problem.New("%w, and %s", first, count(others, "other was not either", "others were not either"))
	}
	return first.Hint("revoke it at its own CA; --allow-unknown tries it here anyway")
}

func isIssuedBy(cert, issuer *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, issuer.RawSubject) && cert.CheckSignatureFrom(issuer) == nil
}

// count writes a number with what it counts.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(int64(n)) + " " + many
}
