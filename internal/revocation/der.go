package revocation

import (
	"bytes"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"math"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// maxFrame is how many bytes of a CRL may not be entries: names, extensions and
// the signature.
const maxFrame = 64 << 10

var errNoCRL = errors.New("it is not a CRL")

// parts are parts of a CRL in DER (RFC 5280, section 5.1).
type parts struct {
	signed  cryptobyte.String // tbsCertList
	before  cryptobyte.String // what stands in it before revokedCertificates
	entries cryptobyte.String // the content of revokedCertificates
	after   cryptobyte.String // what stands in it after that
	rest    cryptobyte.String // what follows tbsCertList: the algorithm and the signature
}

// split finds the parts of a CRL. Nobody has verified its signature yet.
func split(der cryptobyte.String) (p parts, err error) {
	if !der.ReadASN1(&p.rest, asn1.SEQUENCE) || !der.Empty() || !p.rest.ReadASN1Element(&p.signed, asn1.SEQUENCE) {
		return p, errNoCRL
	}
	signed := p.signed
	if !signed.ReadASN1(&p.after, asn1.SEQUENCE) {
		return p, errNoCRL
	}
	p.before = p.after
	// The version, the algorithm and the issuer.
	if !p.after.SkipASN1(asn1.INTEGER) || !p.after.SkipASN1(asn1.SEQUENCE) || !p.after.SkipASN1(asn1.SEQUENCE) {
		return p, errNoCRL
	}
	for p.after.PeekASN1Tag(asn1.UTCTime) || p.after.PeekASN1Tag(asn1.GeneralizedTime) {
		var update cryptobyte.String
		var tag asn1.Tag
		if !p.after.ReadAnyASN1(&update, &tag) {
			return p, errNoCRL
		}
	}
	p.before = p.before[:len(p.before)-len(p.after)]
	if !p.after.ReadOptionalASN1(&p.entries, nil, asn1.SEQUENCE) {
		return p, errNoCRL
	}
	if len(p.before)+len(p.after)+len(p.rest) > maxFrame {
		return p, errors.New("it has more than names, entries, extensions and a signature")
	}
	return p, nil
}

// with parses the CRL as if it had only this entry, or none if that is nil.
func (p parts) with(entry []byte) (*x509.RevocationList, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(p.before)
			if entry != nil {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(entry) })
			}
			b.AddBytes(p.after)
		})
		b.AddBytes(p.rest)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// An index is where entries begin, in the order of a hash of their serial
// numbers, which stands above that in each element.
type index []uint64

// seed keeps a CRL from having many entries with the same hash.
var seed = maphash.MakeSeed()

func hash(s target.Serial) uint64 { return maphash.Bytes(seed, s[:]) &^ math.MaxUint32 }

// indexed makes an index of the entries. Those that cannot be targets are left
// out.
func (p parts) indexed() (index, error) {
	const usual = 36 // bytes of an entry of step-ca without a reason
	ix := make(index, 0, len(p.entries)/usual)
	for left := p.entries; !left.Empty(); {
		at := uint64(len(p.entries) - len(left))
		var entry cryptobyte.String
		if !left.ReadASN1Element(&entry, asn1.SEQUENCE) {
			return nil, errNoCRL
		}
		if s, ok := serialIn(entry); ok {
			ix = append(ix, hash(s)|at)
		}
	}
	slices.Sort(ix)
	return ix, nil
}

// find returns the entry of a serial number, or nil.
func (p parts) find(ix index, serial target.Serial) []byte {
	h := hash(serial)
	for i, _ := slices.BinarySearch(ix, h); i < len(ix) && ix[i]&^math.MaxUint32 == h; i++ {
		left := p.entries[ix[i]&math.MaxUint32:]
		var entry cryptobyte.String
		left.ReadASN1Element(&entry, asn1.SEQUENCE)
		if s, ok := serialIn(entry); ok && s == serial {
			return entry
		}
	}
	return nil
}

// serialIn reads the serial number of an entry. It fails as target.SerialOf
// does, and where there is none.
func serialIn(entry cryptobyte.String) (s target.Serial, ok bool) {
	var number cryptobyte.String
	if !entry.ReadASN1(&entry, asn1.SEQUENCE) || !entry.ReadASN1(&number, asn1.INTEGER) || number.Empty() || number[0] >= 0x80 {
		return s, false
	}
	n := bytes.TrimLeft(number, "\x00")
	if len(n) == 0 || len(n) > len(s) {
		return s, false
	}
	copy(s[len(s)-len(n):], n)
	return s, true
}
