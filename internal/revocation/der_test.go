package revocation

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// join makes a CRL of parts and signs it.
func join(t *testing.T, p parts, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	var tbs, list cryptobyte.Builder
	tbs.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(p.before)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(p.entries) })
		b.AddBytes(p.after)
	})
	sum := sha256.Sum256(tbs.BytesOrPanic())
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	list.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs.BytesOrPanic())
		var algorithm cryptobyte.String
		p.rest.ReadASN1Element(&algorithm, asn1.SEQUENCE)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	return list.BytesOrPanic()
}

// TestOddCRL shows what is made of CRLs that a CA has signed and that are not as
// those of step-ca.
func TestOddCRL(t *testing.T) {
	t.Parallel()
	ca, key := newIssuer(t, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	long := new(big.Int).Lsh(big.NewInt(0x7f), 19*8) // a serial number of 20 octets
	later := time.Date(2051, 2, 3, 4, 5, 6, 0, time.UTC)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(5), ThisUpdate: time.Now(), NextUpdate: later,
		RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(200), RevocationTime: later, ReasonCode: 1},
			{SerialNumber: long, RevocationTime: time.Unix(7, 0)},
			{SerialNumber: big.NewInt(100), RevocationTime: time.Unix(7, 0), ReasonCode: 9},
		},
	}, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := split(der)
	if err != nil {
		t.Fatal(err)
	}
	const utc = "\x17\x0d700101000000Z"
	longSerial, _ := target.SerialOf(long)
	for _, tt := range []struct {
		name    string
		change  func(*parts)
		wantErr string
		serial  target.Serial
		want    string // when it was revoked; -: it is not listed, or an error
	}{
		{"the same", func(*parts) {}, "", target.Serial{19: 100}, "1970-01-01T00:00:07Z"},
		{"after 2049", func(*parts) {}, "", target.Serial{19: 200}, "2051-02-03T04:05:06Z"},
		{"20 octets", func(*parts) {}, "", longSerial, "1970-01-01T00:00:07Z"},
		{"none", func(p *parts) { p.entries = nil }, "", target.Serial{19: 100}, "-"},
		{"twice", func(p *parts) { p.entries = append(p.entries[:len(p.entries):len(p.entries)], p.entries...) }, "", target.Serial{19: 100}, "1970-01-01T00:00:07Z"},
		{"zero", func(p *parts) { p.entries = []byte("\x30\x12\x02\x01\x00" + utc) }, "", target.Serial{}, "-"},
		{"negative", func(p *parts) { p.entries = []byte("\x30\x12\x02\x01\x80" + utc) }, "", target.Serial{19: 128}, "-"},
		{"21 octets", func(p *parts) { p.entries = []byte("\x30\x26\x02\x15\x01" + strings.Repeat("\x00", 19) + "\x64" + utc) }, "", target.Serial{19: 100}, "-"},
		{"no number", func(p *parts) { p.entries = []byte("\x30\x0f" + utc) }, "", target.Serial{19: 100}, "-"},
		{"not in DER", func(p *parts) { p.entries = []byte("\x30\x13\x02\x02\x00\x64" + utc) }, "", target.Serial{19: 100},
			"reading the CRL's entry of serial number 100: x509: malformed serial number"},
		{"no time", func(p *parts) { p.entries = []byte("\x30\x03\x02\x01\x64") }, "", target.Serial{19: 100},
			"reading the CRL's entry of serial number 100: x509: unsupported time format"},
		{"no entry", func(p *parts) { p.entries = []byte("\x02\x01\x64") }, "reading the CRL: it is not a CRL", target.Serial{}, ""},
		{"half an entry", func(p *parts) { p.entries = p.entries[:len(p.entries)-1] }, "reading the CRL: it is not a CRL", target.Serial{}, ""},
		{"no CRL number", func(p *parts) { p.after = nil }, "the CRL's number is missing, or longer than 20 octets (RFC 5280)", target.Serial{}, ""},
		{"a large CRL number", func(p *parts) {
			p.after = []byte("\xa0\x23\x30\x21\x30\x1f\x06\x03\x55\x1d\x14\x04\x18\x02\x16\x01" + strings.Repeat("\x00", 21))
		}, "the CRL's number is missing, or longer than 20 octets (RFC 5280)", target.Serial{}, ""},
		{"a large extension", func(p *parts) { p.after = append(p.after[:len(p.after):len(p.after)], make([]byte, maxFrame)...) },
			"reading the CRL: it has more than names, entries, extensions and a signature", target.Serial{}, ""},
	} {
		p := whole
		tt.change(&p)
		crl, err := ReadCRL(join(t, p, key), []*x509.Certificate{ca})
		if tt.wantErr != "" {
			if err == nil || err.Error() != tt.wantErr {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.wantErr)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := "-"
		switch r, err := crl.Find(t.Context(), tt.serial); {
		case err != nil:
			got = err.Error()
		case r != nil:
			got = Stamp(r.Time)
		}
		if got != tt.want || crl.Lists(tt.serial) != (tt.want != "-") {
			t.Errorf("%s: %s, listed %t; want %s", tt.name, got, crl.Lists(tt.serial), tt.want)
		}
	}
	if _, err := ReadCRL(append(der, 0), []*x509.Certificate{ca}); err == nil || err.Error() != "reading the CRL: it is not a CRL" {
		t.Errorf("with more behind it: %v", err)
	}
}
