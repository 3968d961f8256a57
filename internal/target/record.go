package target

import (
	"bytes"
	"crypto/x509"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A record is a certificate as the CA has it on record, of which only what is
// cheap to tell has been read.
type record struct {
	der       []byte
	serial    []byte // in DER
	notBefore time.Time
	key       cryptobyte.String // subjectPublicKeyInfo
}

var (
	errNoCertificate = errors.New("it is not a certificate")
	errOtherSerial   = errors.New("it is a certificate with another serial number")
)

// readRecord takes a certificate in DER apart (RFC 5280, section 4.1). What is
// cut off, or is no DER, is an error.
func readRecord(der []byte) (record, error) {
	r := record{der: der}
	var cert, tbs, validity cryptobyte.String
	in := cryptobyte.String(der)
	ok := in.ReadASN1(&cert, asn1.SEQUENCE) && in.Empty() &&
		cert.ReadASN1(&tbs, asn1.SEQUENCE) && cert.SkipASN1(asn1.SEQUENCE) && cert.SkipASN1(asn1.BIT_STRING) && cert.Empty() &&
		tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.ReadASN1Bytes(&r.serial, asn1.INTEGER) &&
		tbs.SkipASN1(asn1.SEQUENCE) && // signature
		tbs.SkipASN1(asn1.SEQUENCE) && // issuer
		tbs.ReadASN1(&validity, asn1.SEQUENCE) && readTime(&validity, &r.notBefore) &&
		tbs.SkipASN1(asn1.SEQUENCE) && // subject
		tbs.ReadASN1Element(&r.key, asn1.SEQUENCE)
	for ok && !tbs.Empty() { // unique identifiers and extensions
		var rest cryptobyte.String
		var tag asn1.Tag
		ok = tbs.ReadAnyASN1(&rest, &tag)
	}
	if !ok {
		return record{}, errNoCertificate
	}
	return r, nil
}

// hasSerial tells whether the certificate most likely has a serial number that is
// written in decimal: whether the last 64 bits agree. To compare all of it would
// take longer than the rest of a quick look.
func (r record) hasSerial(decimal string) bool {
	var number, last uint64
	for _, c := range []byte(decimal) {
		if c < '0' || c > '9' {
			return false
		}
		number = number*10 + uint64(c-'0')
	}
	for _, c := range r.serial[max(0, len(r.serial)-8):] {
		last = last<<8 | uint64(c)
	}
	return number == last
}

// readTime reads a UTCTime or a GeneralizedTime.
func readTime(in *cryptobyte.String, t *time.Time) bool {
	if in.PeekASN1Tag(asn1.UTCTime) {
		return in.ReadASN1UTCTime(t)
	}
	return in.ReadASN1GeneralizedTime(t)
}

// Look returns the certificate in DER that the CA has on record under a serial
// number in decimal, if it is one that the query asks for, or else nil. It reads
// the name of the provisioner only if it needs it. An error says that the record
// is corrupt.
func (q Query) Look(serial string, der []byte, provisioner func() (string, error)) (cert *x509.Certificate, name string, err error) {
	r, err := readRecord(der)
	switch {
	case err != nil:
		return nil, "", err
	case !r.hasSerial(serial):
		return nil, "", errOtherSerial
	case !q.mayMatch(r):
		return nil, "", nil
	}
	if cert, err = x509.ParseCertificate(bytes.Clone(der)); err != nil {
		return nil, "", err
	}
	if cert.SerialNumber.String() != serial {
		return nil, "", errOtherSerial
	}
	name, known := provisionerOf(cert)
	if !known {
		if name, err = provisioner(); err != nil {
			return nil, "", err
		}
	}
	if !q.Match(cert, name) {
		return nil, "", nil
	}
	return cert, name, nil
}
