package revocation

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	errMalformed = errors.New("are malformed, or too long")
	errOddName   = errors.New("are too unusual to compare")
)

// The kinds of general names that are compared (RFC 5280, section 4.2.1.6).
var (
	email     = der.Tag(1).ContextSpecific()
	dnsName   = der.Tag(2).ContextSpecific()
	directory = der.Tag(4).ContextSpecific().Constructed()
	uri       = der.Tag(6).ContextSpecific()
)

// A generalName is a name in a form that is the same for two names if OpenSSL
// says so (GENERAL_NAME_cmp): texts byte by byte, names of a directory without
// the differences that X509_NAME_cmp passes over.
type generalName struct {
	kind der.Tag
	text string
}

// A point is where CRLs are to be found (RFC 5280, section 4.2.1.13).
type point struct {
	named     bool                // it has names; one without them fits each CRL of its issuers
	names     []generalName       // any of them may match
	delegated bool                // it says who issues its CRLs
	issuers   []cryptobyte.String // who does, then, if that is a name of a directory
	reasons   uint16              // that its CRLs cover, as OpenSSL's bits
}

// allReasons are the bits of all reasons (OpenSSL: CRLDP_ALL_REASONS). The one
// that is missing is unused in RFC 5280, section 4.2.1.13.
const allReasons = 0x807f

// The fields of a distribution point.
var (
	pointName    = der.Tag(0).ContextSpecific().Constructed()
	pointReasons = der.Tag(1).ContextSpecific()
	pointIssuers = der.Tag(2).ContextSpecific().Constructed()

	fullName = der.Tag(0).ContextSpecific().Constructed()
)

// readPoints reads the CRL distribution points of a certificate. It refuses what
// OpenSSL would refuse, or might compare in another way.
func readPoints(extension cryptobyte.String) ([]point, error) {
	if len(extension) == 0 {
		return nil, nil
	}
	var list cryptobyte.String
	if !extension.ReadASN1(&list, der.SEQUENCE) || !extension.Empty() {
		return nil, errMalformed
	}
	var points []point
	for !list.Empty() {
		var fields cryptobyte.String
		if !list.ReadASN1(&fields, der.SEQUENCE) {
			return nil, errMalformed
		}
		p, err := readPoint(fields)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

func readPoint(fields cryptobyte.String) (p point, err error) {
	var name, reasons, issuers cryptobyte.String
	var some bool
	if !fields.ReadOptionalASN1(&name, &p.named, pointName) || !fields.ReadOptionalASN1(&reasons, &some, pointReasons) ||
		!fields.ReadOptionalASN1(&issuers, &p.delegated, pointIssuers) || !fields.Empty() || !p.named && len(issuers) == 0 {
		return p, errMalformed
	}
	if p.reasons = allReasons; some {
		if p.reasons, err = readReasons(reasons); err != nil {
			return p, err
		}
	}
	if p.delegated {
		if p.issuers, err = readIssuers(issuers); err != nil {
			return p, err
		}
	}
	if p.named {
		p.names, err = readPointName(name)
	}
	return p, err
}

// readReasons reads the content of a BIT STRING.
func readReasons(bits []byte) (uint16, error) {
	if len(bits) == 0 || bits[0] > 7 || len(bits) == 1 && bits[0] > 0 {
		return 0, errMalformed
	}
	if last := bits[len(bits)-1]; len(bits) > 1 && last != last>>bits[0]<<bits[0] {
		return 0, errMalformed
	}
	two := append(bits[1:len(bits):len(bits)], 0, 0)
	return (uint16(two[0]) | uint16(two[1])<<8) & allReasons, nil
}

// readIssuers reads who issues CRLs. OpenSSL passes over all but names of a
// directory.
func readIssuers(list cryptobyte.String) (issuers []cryptobyte.String, err error) {
	if _, err = readNames(list); err != nil {
		return nil, err
	}
	for !list.Empty() {
		var name cryptobyte.String
		var kind der.Tag
		if list.ReadAnyASN1(&name, &kind) && kind == directory {
			issuers = append(issuers, name)
		}
	}
	return issuers, nil
}

// readPointName reads the names of a distribution point. Of a name that is
// relative to the issuer's crypto/x509 reads no certificate, and step-ca makes
// none.
func readPointName(choice cryptobyte.String) ([]generalName, error) {
	var names cryptobyte.String
	var kind der.Tag
	switch {
	case !choice.ReadAnyASN1(&names, &kind) || !choice.Empty():
		return nil, errMalformed
	case kind != fullName:
		return nil, errOddName
	}
	return readNames(names)
}

// readNames reads general names, without the SEQUENCE around them.
func readNames(list cryptobyte.String) (names []generalName, err error) {
	for !list.Empty() {
		var content cryptobyte.String
		n := generalName{}
		if !list.ReadAnyASN1(&content, &n.kind) {
			return nil, errMalformed
		}
		switch n.kind {
		case email, dnsName, uri:
			n.text = string(content)
		case directory:
			n.text, err = directoryName(content)
		default:
			err = errOddName
		}
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

// sameName tells whether OpenSSL takes two names of a directory for the same.
func sameName(a, b []byte) (bool, error) {
	if bytes.Equal(a, b) {
		return true, nil
	}
	one, err := directoryName(a)
	if err != nil {
		return false, err
	}
	other, err := directoryName(b)
	return one == other, err
}

// directoryName writes a name of a directory in the form that OpenSSL compares
// (x509_name_canon).
func directoryName(name cryptobyte.String) (string, error) {
	var rdns cryptobyte.String
	if !name.ReadASN1(&rdns, der.SEQUENCE) || !name.Empty() {
		return "", errMalformed
	}
	var b strings.Builder
	for !rdns.Empty() {
		var rdn, attribute, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var kind der.Tag
		if !rdns.ReadASN1(&rdn, der.SET) || !rdn.ReadASN1(&attribute, der.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) ||
			!attribute.ReadAnyASN1(&value, &kind) || !attribute.Empty() {
			return "", errMalformed
		}
		if !rdn.Empty() || !isComparable(kind, value) {
			return "", errOddName
		}
		fmt.Fprintf(&b, "/%s=%q", oid, folded(value))
	}
	return b.String(), nil
}

// isComparable tells whether OpenSSL compares a value as the text that it has here.
// Other kinds of text it converts first.
func isComparable(kind der.Tag, value []byte) bool {
	switch kind {
	case der.UTF8String:
		return utf8.Valid(value)
	case der.PrintableString, der.IA5String:
		return !slices.ContainsFunc(value, func(c byte) bool { return c >= utf8.RuneSelf })
	}
	return false
}

// folded returns a text without the differences in case and white space that
// OpenSSL passes over, which are those of ASCII.
func folded(text []byte) string {
	isSpace := func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }
	text = bytes.Join(bytes.FieldsFunc(text, isSpace), []byte(" "))
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, string(text))
}
