package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A scope is for which certificates a CRL is (RFC 5280, section 5.2.5).
type scope struct {
	named    bool          // it has names; one without them is for all certificates
	names    []generalName // of its issuing distribution point
	userOnly bool          // it is not for the certificates of CAs
	unknown  error         // why its names are not known
}

var (
	oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
)

// readScope reads for which certificates a CRL is. Its error says why the CRL is
// none that tells, for every certificate of the CA that is no CA, whether it is
// revoked.
func readScope(l *x509.RevocationList) (s scope, err error) {
	found := false
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(oidIssuingPoint) && !found:
			found = true
			if s, err = readIssuingPoint(e.Value); err != nil {
				return s, err
			}
		case e.Id.Equal(oidIssuingPoint):
			return s, errIssuingPoint
		case e.Id.Equal(oidDelta):
			return s, errors.New("the CRL is a delta CRL, which has only what has changed")
		case e.Critical:
			return s, fmt.Errorf("the CRL has a critical extension that is not known, %s", e.Id)
		}
	}
	return s, nil
}

// maxNames bounds the names of an issuing distribution point, in bytes.
const maxNames = 4 << 10

var errIssuingPoint = errors.New("the CRL's issuing distribution point cannot be read")

// restrictions are the other fields of an issuing distribution point, in their
// order, with what is wrong with a CRL that has them.
var restrictions = []struct {
	tag     der.Tag
	isFlag  bool
	refused string // empty: it is not
}{
	{1, true, ""},
	{2, true, "the CRL is for the certificates of CAs only"},
	{3, false, "the CRL is for some reasons only"},
	{4, true, "the CRL is an indirect CRL, which may be about the certificates of other CAs"},
	{5, true, "the CRL is for attribute certificates only"},
}

func readIssuingPoint(extension cryptobyte.String) (s scope, err error) {
	var fields, name cryptobyte.String
	if !extension.ReadASN1(&fields, der.SEQUENCE) || !extension.Empty() || !fields.ReadOptionalASN1(&name, &s.named, pointName) {
		return s, errIssuingPoint
	}
	for _, r := range restrictions {
		var value cryptobyte.String
		var present bool
		if !fields.ReadOptionalASN1(&value, &present, r.tag.ContextSpecific()) || present && r.isFlag && len(value) != 1 {
			return s, errIssuingPoint
		}
		switch {
		case !present || r.isFlag && value[0] == 0:
		case r.refused != "":
			return s, errors.New(r.refused)
		default:
			s.userOnly = true
		}
	}
	if !fields.Empty() {
		return s, errIssuingPoint
	}
	if len(name) > maxNames {
		s.unknown = errOddName
	} else if s.named {
		s.names, s.unknown = readPointName(name)
	}
	if errors.Is(s.unknown, errMalformed) {
		return s, errIssuingPoint
	}
	return s, nil
}

// A Fit is what "openssl verify -crl_check" does with a CRL for a certificate
// (OpenSSL 3, crypto/x509/x509_vfy.c, get_crl_score and crl_crldp_check).
type Fit struct {
	Error string // with which it fails; empty: it finds out whether the certificate is revoked
	Why   string // a clause for a person
}

// The errors of OpenSSL.
const (
	errorScope = "different CRL scope"
	errorNone  = "unable to get certificate CRL"
)

// Fit returns what OpenSSL does with the CRL for a certificate, which is listed in
// it or not. An error says why that is not known.
func (l *CRL) Fit(c target.Scope, listed bool) (Fit, error) {
	if l.scope.unknown != nil {
		return Fit{}, fmt.Errorf("the names of the CRL's issuing distribution point %w", l.scope.unknown)
	}
	points, err := readPoints(cryptobyte.String(c.Points))
	if err != nil {
		return Fit{}, fmt.Errorf("the certificate's CRL distribution points %w", err)
	}
	same, err := sameName([]byte(c.Issuer), l.list.RawIssuer)
	keyID := string(l.list.AuthorityKeyId)
	switch {
	case err != nil:
		return Fit{}, fmt.Errorf("the names of the issuers %w", err)
	case !same || keyID != c.KeyID && keyID != "" && c.KeyID != "":
		return Fit{errorNone, "the CRL is that of another issuer than the certificate's"}, nil
	case c.IsCA && l.scope.userOnly:
		return Fit{errorScope, "the CRL is not for the certificates of CAs"}, nil
	}
	return l.match(points, listed)
}

// match compares the CRL's names with those of a certificate of its issuer. The
// first point that fits is the one that counts.
func (l *CRL) match(points []point, listed bool) (Fit, error) {
	for _, p := range points {
		fits, err := l.fits(p)
		switch {
		case err != nil:
			return Fit{}, fmt.Errorf("the names of the CRL issuers %w", err)
		case fits && p.reasons != allReasons && (p.reasons == 0 || !listed):
			return Fit{errorNone, "the certificate's distribution point is for some reasons only"}, nil
		case fits && l.scope.named:
			return Fit{Why: fmt.Sprintf("it is that of %s, where the certificate says to look", shown(l.scope.names))}, nil
		case fits:
			return Fit{Why: forAll}, nil
		}
	}
	if !l.scope.named {
		return Fit{Why: forAll}, nil
	}
	return Fit{errorScope, fmt.Sprintf("the CRL is that of %s, and the certificate names %s; crl.idpURL in ca.json and crlDistributionPoints in the certificate's template must agree",
		shown(l.scope.names), l.shownPoints(points))}, nil
}

const forAll = "it is for all certificates of the CA"

// fits tells whether the CRL is one of those that are to be found at a point.
func (l *CRL) fits(p point) (bool, error) {
	if ours, err := p.isIssuedBy(l.list.RawIssuer); !ours {
		return false, err
	}
	return !l.scope.named || !p.named || slices.ContainsFunc(p.names, l.scope.has), nil
}

func (s scope) has(n generalName) bool { return slices.Contains(s.names, n) }

// isIssuedBy tells whether the CRLs at a point are issued by this name, that of
// the certificate's issuer.
func (p point) isIssuedBy(issuer []byte) (bool, error) {
	if !p.delegated {
		return true, nil
	}
	for _, name := range p.issuers {
		if same, err := sameName(name, issuer); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

// Bounds of what is shown: names, and characters of each.
const (
	maxShown     = 3
	maxShownName = 200
)

// shown writes names for a person.
func shown(names []generalName) string {
	var texts []string
	for _, n := range names[:min(len(names), maxShown)] {
		if text := []rune(n.text); len(text) > maxShownName {
			n.text = string(text[:maxShownName]) + "…"
		}
		texts = append(texts, n.text)
	}
	if more := len(names) - maxShown; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, " and ")
}

// shownPoints writes the names of a certificate's points for a person.
func (l *CRL) shownPoints(points []point) string {
	var names []generalName
	for _, p := range points {
		names = append(names, p.names...)
		if ours, _ := p.isIssuedBy(l.list.RawIssuer); !ours {
			names = append(names, generalName{text: "another CRL issuer"})
		}
	}
	if len(names) == 0 {
		return "no distribution point"
	}
	return shown(names)
}
