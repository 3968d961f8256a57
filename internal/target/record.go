package target

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A record is a certificate as the CA has it on record, of which only what is
// cheap to tell has been read.
type record struct {
	der       []byte
	serial    *big.Int
	notBefore time.Time
}

var errNoCertificate = errors.New("it is not a certificate")

// readRecord takes a certificate in DER apart (RFC 5280, section 4.1). What is
// cut off, or is no DER, is an error.
func readRecord(der []byte) (record, error) {
	r := record{der: der, serial: new(big.Int)}
	var cert, tbs, validity cryptobyte.String
	in := cryptobyte.String(der)
	ok := in.ReadASN1(&cert, asn1.SEQUENCE) && in.Empty() &&
		cert.ReadASN1(&tbs, asn1.SEQUENCE) && cert.SkipASN1(asn1.SEQUENCE) && cert.SkipASN1(asn1.BIT_STRING) && cert.Empty() &&
		tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.ReadASN1Integer(r.serial) &&
		tbs.SkipASN1(asn1.SEQUENCE) && // signature
		tbs.SkipASN1(asn1.SEQUENCE) && // issuer
		tbs.ReadASN1(&validity, asn1.SEQUENCE) && readTime(&validity, &r.notBefore) &&
		tbs.SkipASN1(asn1.SEQUENCE) && // subject
		tbs.SkipASN1(asn1.SEQUENCE) // subjectPublicKeyInfo
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
	case r.serial.String() != serial:
		return nil, "", errors.New("it is the certificate with another serial number")
	case !q.mayMatch(r):
		return nil, "", nil
	}
	if cert, err = x509.ParseCertificate(bytes.Clone(der)); err != nil {
		return nil, "", err
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
