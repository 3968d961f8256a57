package revocation

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// tlv is a DER value: a tag and what is in it.
func tlv(tag der.Tag, content ...string) string {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(strings.Join(content, ""))) })
	return string(b.BytesOrPanic())
}

// ctx is a DER value with a tag of its context.
func ctx(n der.Tag, content ...string) string { return tlv(n.ContextSpecific(), content...) }

// in is one that has other values in it.
func in(n der.Tag, content ...string) string {
	return tlv(n.ContextSpecific().Constructed(), content...)
}

func seq(content ...string) string { return tlv(der.SEQUENCE, content...) }

// rdn is a relative distinguished name with a common name, without the SET
// around it.
func rdn(kind der.Tag, name string) string { return seq("\x06\x03\x55\x04\x03", tlv(kind, name)) }

// dir is a general name of a directory.
func dir(kind der.Tag, names ...string) string {
	var rdns string
	for _, name := range names {
		rdns += tlv(der.SET, rdn(kind, name))
	}
	return in(4, seq(rdns))
}

// at is a point with these general names, and more fields.
func at(names string, more ...string) string {
	return seq(append([]string{in(0, in(0, names))}, more...)...)
}

const (
	utf8Text, printable = der.UTF8String, der.PrintableString

	addressA, addressB = "https://ca.example.com/1.0/crl", "http://crl.example.com/crl"
)

var (
	uriA, uriB = ctx(6, addressA), ctx(6, addressB)
	// Bits 1 to 8, of which OpenSSL wants all.
	everyReason, someReasons = ctx(1, "\x07\x7f\x80"), ctx(1, "\x01\x06")
)

// pointsOf are CRL distribution points of certificates of the CA named "The CA".
var pointsOf = map[string]string{
	"none":                      "",
	"an empty list":             seq(),
	"A":                         seq(at(uriA)),
	"B":                         seq(at(uriB)),
	"B, then A":                 seq(at(uriB), at(uriA)),
	"B and A":                   seq(at(uriB + uriA)),
	"A in capitals":             seq(at(ctx(6, strings.ToUpper(addressA)))),
	"A with a slash":            seq(at(ctx(6, addressA+"/"))),
	"no names":                  seq(at("")),
	"a DNS name":                seq(at(ctx(2, addressA))),
	"an address of mail":        seq(at(ctx(1, addressA))),
	"a directory":               seq(at(dir(utf8Text, "A", "A Dir"))),
	"the directory, spelt anew": seq(at(dir(printable, " a", "a \t\n DIR "))),
	"another directory":         seq(at(dir(utf8Text, "A Dir", "A"))),
	"part of the directory":     seq(at(dir(utf8Text, "A"))),
	"some reasons":              seq(at(uriA, someReasons)),
	"all reasons":               seq(at(uriA, everyReason)),
	"all but one":               seq(at(uriA, ctx(1, "\x00\x7f"))),
	"all, and the unused one":   seq(at(uriA, ctx(1, "\x07\xff\x80"))),
	"the unused reason":         seq(at(uriA, ctx(1, "\x07\x80"))),
	"no reasons":                seq(at(uriA, ctx(1, "\x00"))),
	"some, then all":            seq(at(uriA, someReasons), at(uriA)),
	"of B some, then A":         seq(at(uriB, someReasons), at(uriA)),
	"issued by the CA":          seq(at(uriA, in(2, dir(utf8Text, "The CA")))),
	"by the CA, spelt anew":     seq(at(uriA, in(2, dir(printable, "THE CA ")))),
	"issued by another":         seq(at(uriA, in(2, dir(utf8Text, "Other")))),
	"issued by both":            seq(at(uriA, in(2, dir(utf8Text, "Other"), dir(utf8Text, "The CA")))),
	"issued by an address":      seq(at(uriA, in(2, uriA))),
	"issued by nobody":          seq(at(uriA, in(2))),
	"nameless of the CA":        seq(seq(in(2, dir(utf8Text, "The CA")))),
	"nameless of another":       seq(seq(in(2, dir(utf8Text, "Other")))),
	"by another, then A":        seq(at(uriA, in(2, dir(utf8Text, "Other"))), at(uriA)),
}

// unreadable are distribution points that are not compared.
var unreadable = map[string]string{
	"nothing in a point":     seq(seq()),
	"only reasons":           seq(seq(everyReason)),
	"another kind of name":   seq(at(ctx(7, "\x7f\x00\x00\x01"))),
	"two attributes":         seq(at(in(4, seq(tlv(der.SET, rdn(utf8Text, "A"), rdn(utf8Text, "B")))))),
	"another kind of text":   seq(at(in(4, seq(tlv(der.SET, rdn(der.T61String, "A")))))),
	"reasons without bits":   seq(at(uriA, ctx(1, ""))),
	"too many unused bits":   seq(at(uriA, ctx(1, "\x08\x00"))),
	"unused bits that count": seq(at(uriA, ctx(1, "\x07\xff"))),
	"an unknown field":       seq(at(uriA, ctx(3, "x"))),
	"more behind them":       seq(at(uriA)) + "\x00",
	"long":                   seq(at(strings.Repeat(uriB, 5000/len(uriB)) + uriA)),
}

// issuingPoints are those of CRLs of "The CA", with what ReadCRL says to them.
var issuingPoints = map[string]struct{ der, refused string }{
	"none":                  {"", ""},
	"nothing":               {seq(), ""},
	"A":                     {at(uriA), ""},
	"B":                     {at(uriB), ""},
	"C and A":               {at(ctx(6, "C") + uriA), ""},
	"A for users":           {at(uriA, ctx(1, "\xff")), ""},
	"A, not only for users": {at(uriA, ctx(1, "\x00")), ""},
	"for users":             {seq(ctx(1, "\xff")), ""},
	"a DNS name":            {at(ctx(2, addressA)), ""},
	"a directory":           {at(dir(utf8Text, "A", "A Dir")), ""},
	"no names":              {at(""), ""},
	"for CAs":               {at(uriA, ctx(2, "\xff")), "the CRL is for the certificates of CAs only"},
	"for users and for CAs": {at(uriA, ctx(1, "\xff"), ctx(2, "\xff")), "the CRL is for the certificates of CAs only"},
	"for attributes":        {at(uriA, ctx(5, "\xff")), "the CRL is for attribute certificates only"},
	"some reasons":          {at(uriA, ctx(3, "\x01\x06")), "the CRL is for some reasons only"},
	"all reasons":           {at(uriA, ctx(3, "\x07\x7f\x80")), "the CRL is for some reasons only"},
	"indirect":              {at(uriA, ctx(4, "\xff")), "the CRL is an indirect CRL, which may be about the certificates of other CAs"},
}

// An entity is a CA of these tests.
type entity struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newEntity(t *testing.T, name string) entity {
	t.Helper()
	cert, key := newIssuer(t, name, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	return entity{cert, key}
}

// issue makes a certificate with these distribution points.
func (e entity) issue(t *testing.T, serial int64, points string, isCA bool) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "mike"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: isCA,
	}
	if points != "" {
		template.ExtraExtensions = []pkix.Extension{{Id: oidDistributionPoints, Value: []byte(points)}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, e.cert, e.key.Public(), e.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var oidDistributionPoints = []int{2, 5, 29, 31}

// list makes a CRL with these extensions, which lists odd serial numbers.
func (e entity) list(t *testing.T, extensions ...pkix.Extension) []byte {
	t.Helper()
	template := &x509.RevocationList{
		Number: big.NewInt(5), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), ExtraExtensions: extensions,
	}
	for n := int64(101); n < 300; n += 2 {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, e.cert, e.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func issuingPoint(point string) pkix.Extension {
	return pkix.Extension{Id: oidIssuingPoint, Critical: true, Value: []byte(point)}
}

// TestFitText shows what a person reads.
func TestFitText(t *testing.T) {
	t.Parallel()
	ca := newEntity(t, "The CA")
	const mustAgree = "; crl.idpURL in ca.json and crlDistributionPoints in the certificate's template must agree"
	long := "https://" + strings.Repeat("x", 300)
	many := at(ctx(6, "1") + ctx(6, "2") + ctx(6, "3") + ctx(6, "4") + ctx(6, "5"))
	for _, tt := range []struct{ crl, points, want string }{
		{at(uriA), seq(at(uriA)), "it is that of " + addressA + ", where the certificate says to look"},
		{seq(), seq(at(uriB)), "it is for all certificates of the CA"},
		{at(uriA), "", "the CRL is that of " + addressA + ", and the certificate names no distribution point" + mustAgree},
		{at(uriA), seq(at(uriB), at(ctx(6, "C"))), "the CRL is that of " + addressA + ", and the certificate names " + addressB + " and C" + mustAgree},
		{at(ctx(6, long)), seq(many), "the CRL is that of " + long[:200] + "…, and the certificate names 1 and 2 and 3 and 2 more" + mustAgree},
		{at(uriA), seq(at(uriA, in(2, dir(utf8Text, "Other")))), "the CRL is that of " + addressA + ", and the certificate names " + addressA + " and another CRL issuer" + mustAgree},
		{at(uriA), seq(at(uriB, in(2, dir(printable, "the CA")))), "the CRL is that of " + addressA + ", and the certificate names " + addressB + mustAgree},
		{at(dir(utf8Text, "A")), seq(at("")), "the CRL is that of /2.5.4.3=\"a\", and the certificate names no distribution point" + mustAgree},
	} {
		list, err := ReadCRL(ca.list(t, issuingPoint(tt.crl)), []*x509.Certificate{ca.cert})
		if err != nil {
			t.Fatal(err)
		}
		scope, _ := target.CertificateOf(ca.issue(t, 100, tt.points, false)).Scope()
		if fit, err := list.Fit(scope, false); err != nil || fit.Why != tt.want {
			t.Errorf("%v, %q\nwant %q", err, fit.Why, tt.want)
		}
	}
}

// TestRestricted shows which CRLs are no evidence, because they are not about every
// certificate of a user.
func TestRestricted(t *testing.T) {
	t.Parallel()
	ca := newEntity(t, "The CA")
	for name, point := range issuingPoints {
		if point.der == "" {
			continue
		}
		list, err := ReadCRL(ca.list(t, issuingPoint(point.der)), []*x509.Certificate{ca.cert})
		if fmt.Sprint(err) != cmp.Or(point.refused, "<nil>") || (list == nil) != (err != nil) {
			t.Errorf("CRL %s: %v, want %s", name, err, point.refused)
		}
	}
}

// TestUnknownFit shows which CRLs and certificates cannot be compared.
func TestUnknownFit(t *testing.T) {
	t.Parallel()
	ca := newEntity(t, "The CA")
	issuers := []*x509.Certificate{ca.cert}
	scopeOf := func(points string) target.Scope {
		scope, _ := target.CertificateOf(ca.issue(t, 100, points, false)).Scope()
		return scope
	}
	list, err := ReadCRL(ca.list(t, issuingPoint(at(uriA))), issuers)
	if err != nil {
		t.Fatal(err)
	}
	for name, points := range unreadable {
		if fit, err := list.Fit(scopeOf(points), true); err == nil {
			t.Errorf("points with %s: %+v", name, fit)
		}
	}
	for _, tt := range []struct {
		name       string
		extensions []pkix.Extension
		refused    string // empty: the CRL is read, and its scope is not known
	}{
		{"a relative name", []pkix.Extension{issuingPoint(seq(in(0, in(1, rdn(utf8Text, "A")))))}, ""},
		{"a relative name that is none", []pkix.Extension{issuingPoint(seq(in(0, in(1, uriA))))}, ""},
		{"another kind of name", []pkix.Extension{issuingPoint(at(uriA + ctx(7, "\x7f\x00\x00\x01")))}, ""},
		{"long names", []pkix.Extension{issuingPoint(at(strings.Repeat(uriB, 5000/len(uriB)) + uriA))}, ""},
		{"no choice", []pkix.Extension{issuingPoint(seq(in(0)))}, "the CRL's issuing distribution point cannot be read"},
		{"nothing", []pkix.Extension{issuingPoint("")}, "the CRL's issuing distribution point cannot be read"},
		{"half of it", []pkix.Extension{issuingPoint(at(uriA)[:9])}, "the CRL's issuing distribution point cannot be read"},
		{"more behind it", []pkix.Extension{issuingPoint(at(uriA) + "\x00")}, "the CRL's issuing distribution point cannot be read"},
		{"an unknown field", []pkix.Extension{issuingPoint(at(uriA, ctx(6, "\xff")))}, "the CRL's issuing distribution point cannot be read"},
		{"a long flag", []pkix.Extension{issuingPoint(at(uriA, ctx(1, "\x00\xff")))}, "the CRL's issuing distribution point cannot be read"},
		{"two of them", []pkix.Extension{issuingPoint(at(uriA)), issuingPoint(at(uriA))}, "the CRL's issuing distribution point cannot be read"},
		{"a delta CRL", []pkix.Extension{{Id: oidDelta, Critical: true, Value: []byte("\x02\x01\x01")}}, "the CRL is a delta CRL, which has only what has changed"},
		{"a critical extension", []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true}}, "the CRL has a critical extension that is not known, 1.2.3"},
		{"one that is not critical", []pkix.Extension{{Id: []int{1, 2, 3}}, issuingPoint(at(ctx(8, "\x29")))}, ""},
	} {
		list, err := ReadCRL(ca.list(t, tt.extensions...), issuers)
		if fmt.Sprint(err) != cmp.Or(tt.refused, "<nil>") {
			t.Errorf("CRL with %s: %v, want %s", tt.name, err, tt.refused)
		}
		if err != nil {
			continue
		}
		if fit, err := list.Fit(scopeOf(seq(at(uriA))), true); err == nil {
			t.Errorf("CRL with %s: %+v", tt.name, fit)
		}
	}
}

// TestSetFit shows when an outcome says whether the CRL can be used.
func TestSetFit(t *testing.T) {
	t.Parallel()
	ca := newEntity(t, "The CA")
	crl, err := ReadCRL(ca.list(t, issuingPoint(at(uriA))), []*x509.Certificate{ca.cert})
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for _, tt := range []struct {
		name   string
		crl    *CRL
		points string // -: there is no certificate at hand
		record *Record
		atHand bool
		want   *bool
	}{
		{"no CRL", nil, seq(at(uriA)), &Record{Listed: true}, false, nil},
		{"no certificate", crl, "-", &Record{Listed: true}, false, nil},
		{"the same", crl, seq(at(uriA)), nil, true, &yes},
		{"another", crl, seq(at(uriB)), &Record{Listed: true}, true, &no},
		{"not known", crl, unreadable["only reasons"], &Record{Listed: true}, true, nil},
		{"for some reasons, listed", crl, seq(at(uriA, someReasons)), &Record{Listed: true}, true, &yes},
		{"for some reasons, on record", crl, seq(at(uriA, someReasons)), &Record{}, true, &no},
		{"for some reasons", crl, seq(at(uriA, someReasons)), nil, true, &no},
	} {
		o := &Outcome{Target: &target.Target{}, Answer: Answer{Record: tt.record}}
		if tt.points != "-" {
			o.Target.Cert = target.CertificateOf(ca.issue(t, 100, tt.points, false))
		}
		if _, atHand, _ := o.SetFit(tt.crl); atHand != tt.atHand || !reflect.DeepEqual(o.CRLUsable, tt.want) {
			t.Errorf("%s: at hand %t, %v", tt.name, atHand, o.CRLUsable)
		}
	}
}

// TestSameName shows that a name is compared with itself, whatever is in it.
func TestSameName(t *testing.T) {
	t.Parallel()
	one := dir(utf8Text, "A")[2:] // the name itself
	odd := seq(tlv(der.SET, rdn(utf8Text, "A"), rdn(utf8Text, "B")))
	for _, tt := range []struct {
		a, b      string
		want, bad bool
	}{{one, one, true, false}, {odd, odd, true, false}, {odd, one, false, true}, {one, odd, false, true}} {
		if same, err := sameName([]byte(tt.a), []byte(tt.b)); same != tt.want || (err != nil) != tt.bad {
			t.Errorf("%x and %x: %t, %v", tt.a, tt.b, same, err)
		}
	}
}

// FuzzPoints makes sure that distribution points are read as they are written, and
// that whatever comes, nothing panics.
func FuzzPoints(f *testing.F) {
	f.Add(addressA, addressB, "Other", uint16(0x6080), uint8(7), []byte(at(uriA)))
	f.Add("", "\xff", "a  B", uint16(0), uint8(0), []byte(seq(at(dir(utf8Text, "A")), seq(in(2, dir(printable, "B"))))))
	f.Fuzz(func(t *testing.T, one, two, issuer string, reasons uint16, unused uint8, raw []byte) {
		defer bounded()()
		unused %= 8
		reasons = reasons >> unused << unused
		bits := string([]byte{unused, byte(reasons >> 8), byte(reasons)})
		points, err := readPoints([]byte(seq(at(ctx(6, one)+ctx(2, two), ctx(1, bits), in(2, dir(utf8Text, issuer))))))
		want := []point{{
			named: true, names: []generalName{{uri, one}, {dnsName, two}}, reasons: (reasons>>8 | reasons<<8) & allReasons,
			delegated: true, issuers: []cryptobyte.String{[]byte(dir(utf8Text, issuer))[2:]},
		}}
		if len(issuer) < 100 && utf8.ValidString(issuer) && !reflect.DeepEqual(points, want) {
			t.Errorf("%+v, %v; want %+v", points, err, want)
		}
		_, _ = readPoints(raw)
		_, _ = readIssuingPoint(raw)
	})
}
