package target

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// noon is when the certificates of these tests were issued.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// generalName is one name of a SAN extension, as its bytes.
func generalName(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

// san makes a SAN extension of names.
func san(t testing.TB, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSAN, Value: value}
}

// issuedBy makes step-ca's extension.
func issuedBy(t testing.TB, provisioner string) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(struct {
		Type               int
		Name, CredentialID []byte
	}{1, []byte(provisioner), []byte("kid")})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidProvisioner, Value: value}
}

// newRecord makes a certificate.
func newRecord(t testing.TB, key crypto.Signer, subject pkix.Name, extensions ...pkix.Extension) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: subject, NotBefore: noon, NotAfter: noon.Add(24 * time.Hour), ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parseQuery(t testing.TB, terms ...string) Query {
	t.Helper()
	q, err := ParseQuery(t.Context(), terms, "", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(terms, err)
	}
	return q
}

// finds tells whether a query finds a certificate, by the quick look and the full
// one. Both must agree.
func finds(t testing.TB, q Query, cert *x509.Certificate, provisioner string) bool {
	t.Helper()
	found, _, err := q.Look("4711", cert.Raw, func() (string, error) { return provisioner, nil })
	if err != nil {
		t.Fatal(err)
	}
	name, known := provisionerOf(cert)
	if !known {
		name = provisioner
	}
	if q.Match(cert, name) != (found != nil) {
		t.Errorf("the quick look at %v is wrong", q.Terms())
	}
	return found != nil
}

func TestQueryNames(t *testing.T) {
	t.Parallel()
	key := newECKey(t)
	mapped := string(net.ParseIP("10.0.0.1")) // 16 octets
	for _, tt := range []struct {
		term  string
		yes   []asn1.RawValue
		never []asn1.RawValue
	}{
		{"san=db1.example.com",
			[]asn1.RawValue{generalName(2, "db1.example.com"), generalName(2, "DB1.Example.COM"), generalName(2, "db1.example.com.")},
			[]asn1.RawValue{
				generalName(2, "db1.example.com.evil.org"), generalName(2, "xdb1.example.com"), generalName(2, "db1.example.co"), generalName(2, "*.example.com"),
				generalName(1, "db1.example.com@db1.example.com"), generalName(6, "https://db1.example.com"), generalName(2, "db1.example.com.."), generalName(2, "db1-example.com"),
			}},
		{"san=DB1.EXAMPLE.COM.", []asn1.RawValue{generalName(2, "db1.example.com")}, nil},
		{"san=*.example.com", []asn1.RawValue{generalName(2, "*.Example.com")}, []asn1.RawValue{generalName(2, "db1.example.com"), generalName(2, "x.example.com")}},
		{"san=MÜNCHEN.example", []asn1.RawValue{generalName(2, "xn--mnchen-3ya.example"), generalName(2, "XN--Mnchen-3ya.example.")}, []asn1.RawValue{generalName(2, "munchen.example")}},
		{"san=xn--MNCHEN-3ya.example", []asn1.RawValue{generalName(2, "xn--mnchen-3ya.example")}, nil},
		{"san=*.bücher.example", []asn1.RawValue{generalName(2, "*.xn--bcher-kva.example")}, nil},
		{"san=my_host", []asn1.RawValue{generalName(2, "My_Host")}, []asn1.RawValue{generalName(2, "my-host")}},
		{"san=Mike Smith", []asn1.RawValue{generalName(2, "mike smith")}, nil},
		{"san=10.0.0.1",
			[]asn1.RawValue{generalName(7, "\x0a\x00\x00\x01"), generalName(7, mapped)},
			[]asn1.RawValue{generalName(2, "10.0.0.1"), generalName(6, "https://10.0.0.1"), generalName(7, "\x0a\x00\x00\x02"), generalName(7, "\x0a\x00\x00\x01\x0a\x00\x00\x01\x0a\x00\x00\x01\x0a\x00\x00\x01")}},
		{"san=::ffff:10.0.0.1", []asn1.RawValue{generalName(7, "\x0a\x00\x00\x01"), generalName(7, mapped)}, nil},
		{"san=2001:DB8::1", []asn1.RawValue{generalName(7, string(net.ParseIP("2001:db8:0:0::1")))}, []asn1.RawValue{generalName(2, "2001:db8::1")}},
		{"san=Mike@Example.com",
			[]asn1.RawValue{generalName(1, "Mike@example.com"), generalName(1, "Mike@EXAMPLE.com.")},
			[]asn1.RawValue{generalName(1, "mike@example.com"), generalName(2, "mike@example.com"), generalName(1, "Mike@sub.example.com")}},
		{"san=mike@münchen.example", []asn1.RawValue{generalName(1, "mike@xn--mnchen-3ya.example")}, nil},
		{"san=HTTPS://Mike@Example.com/Path?Q#F",
			[]asn1.RawValue{generalName(6, "https://Mike@EXAMPLE.com/Path?Q#F")},
			[]asn1.RawValue{generalName(6, "https://mike@example.com/Path?Q#F"), generalName(6, "https://Mike@example.com/path?Q#F"), generalName(6, "https://Mike@example.com/Path?q#F"), generalName(2, "https://Mike@example.com/Path?Q#F")}},
		{"san=https://example.com", []asn1.RawValue{generalName(6, "HTTPS://EXAMPLE.COM")}, []asn1.RawValue{generalName(6, "https://example.com/"), generalName(6, "https://example.com:443")}},
		{"san=spiffe://td/ns/%41", []asn1.RawValue{generalName(6, "spiffe://TD/ns/%41")}, []asn1.RawValue{generalName(6, "spiffe://td/ns/A")}},
		{"san=urn:uuid:ABC", []asn1.RawValue{generalName(6, "URN:uuid:ABC")}, []asn1.RawValue{generalName(6, "urn:uuid:abc")}},
		{"san=https://example.com/ü", []asn1.RawValue{generalName(6, "https://example.com/%C3%BC")}, nil},
	} {
		q := parseQuery(t, tt.term)
		for _, name := range tt.yes {
			if !finds(t, q, newRecord(t, key, pkix.Name{}, san(t, generalName(2, "first.example"), name)), "") {
				t.Errorf("%s does not find %d %q", tt.term, name.Tag, name.Bytes)
			}
		}
		for _, name := range tt.never {
			if cert := newRecord(t, key, pkix.Name{CommonName: "db1.example.com"}, san(t, generalName(2, "first.example"), name)); finds(t, q, cert, "") {
				t.Errorf("%s finds %d %q", tt.term, name.Tag, name.Bytes)
			}
		}
	}
}

func TestQueryProperties(t *testing.T) {
	t.Parallel()
	key := newECKey(t)
	commonName := func(tag int, text string) pkix.Name {
		return pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: asn1.RawValue{Tag: tag, Bytes: []byte(text)}}}}
	}
	mike := newRecord(t, key, pkix.Name{CommonName: "mike", Organization: []string{"Example"}}, issuedBy(t, "ci"), san(t, generalName(2, "mike.example"), generalName(2, "m.example")))
	old := newRecord(t, key, pkix.Name{CommonName: "old"})
	for _, tt := range []struct {
		cert  *x509.Certificate
		terms []string
		want  bool
	}{
		{mike, []string{"subject=mike"}, true},
		{mike, []string{"subject=Mike"}, false},
		{mike, []string{"subject=mik"}, false},
		{mike, []string{"subject=Example"}, false},
		{mike, []string{"subject=mike.example"}, false},
		{newRecord(t, key, commonName(asn1.TagUTF8String, "Jürgen 北京")), []string{"subject=Jürgen 北京"}, true},
		{newRecord(t, key, commonName(asn1.TagBMPString, "\x00J\x00\xfc\x53\x17")), []string{"subject=Jü北"}, true},
		{newRecord(t, key, commonName(asn1.TagT61String, "J\xfc")), []string{"subject=Jü"}, true},
		{newRecord(t, key, pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: "one"}, {Type: oidCommonName, Value: "two"}}}), []string{"subject=one"}, true},
		{mike, []string{"provisioner=ci"}, true},
		{mike, []string{"provisioner=CI"}, false},
		{mike, []string{"provisioner=from the database"}, false},
		{old, []string{"provisioner=from the database"}, true},
		{old, []string{"provisioner=ci"}, false},
		{mike, []string{"issued-after=2026-11-20"}, true},
		{mike, []string{"issued-after=2026-11-20T12:00:00Z"}, true},
		{mike, []string{"issued-after=2026-11-20T13:00:00+01:00"}, true},
		{mike, []string{"issued-after=2026-11-20T12:00:01Z"}, false},
		{mike, []string{"issued-after=1h"}, true},
		{mike, []string{"issued-after=59m59s"}, false},
		{mike, []string{"issued-before=2026-11-21"}, true},
		{mike, []string{"issued-before=2026-11-20T12:00:00Z"}, false},
		{mike, []string{"issued-before=2026-11-20T12:00:00.1Z"}, true},
		{mike, []string{"issued-before=59m"}, true},
		{mike, []string{"issued-before=1h"}, false},
		// The same property twice means any, different ones all.
		{mike, []string{"san=m.example", "san=nobody.example"}, true},
		{mike, []string{"san=nobody.example", "san=mike.example"}, true},
		{mike, []string{"san=m.example", "subject=mike", "provisioner=ci", "issued-after=2h"}, true},
		{mike, []string{"san=m.example", "subject=nobody"}, false},
		{mike, []string{"san=m.example", "subject=nobody", "subject=mike"}, true},
		{mike, []string{"san=nobody.example", "subject=mike"}, false},
	} {
		if got := finds(t, parseQuery(t, tt.terms...), tt.cert, "from the database"); got != tt.want {
			t.Errorf("%v: %t", tt.terms, got)
		}
	}
	if (Query{}).Match(mike, "ci") {
		t.Error("no query finds something")
	}
	if later := parseQuery(t, "issued-after=1h").At(noon.Add(2 * time.Hour)); finds(t, later, mike, "") {
		t.Error("a duration is not counted back from another time")
	}
}

// TestQueryKeys finds certificates by their keys, whatever file has them.
func TestQueryKeys(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if kind != "" {
			der = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, der, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	other := newRecord(t, newECKey(t), pkix.Name{CommonName: "other"})
	for i, key := range []crypto.Signer{newECKey(t), p384, rsaKey, edKey} {
		cert := newRecord(t, key, pkix.Name{CommonName: "mike"})
		renewed := newRecord(t, key, pkix.Name{CommonName: "renewed"})
		request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		prefix := string(rune('a' + i))
		files := []string{
			write(prefix+".crt", "CERTIFICATE", cert.Raw, nil), write(prefix+".cer", "", cert.Raw, nil),
			write(prefix+".csr", "CERTIFICATE REQUEST", request, nil), write(prefix+".p10", "", request, nil),
			write(prefix+".pub", "PUBLIC KEY", public, nil), write(prefix+".spki", "", public, nil),
			write(prefix+".key", "PRIVATE KEY", private, err), write(prefix+".p8", "", private, err),
		}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			files = append(files, write(prefix+"1.pub", "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey), nil))
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			file := write(prefix+"1.key", "EC PRIVATE KEY", der, err)
			data, _ := os.ReadFile(file)
			files = append(files, file, write(prefix+"2.key", "", append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{5, 0}}), data...), nil))
		}
		var terms []string
		for _, file := range files {
			q := parseQuery(t, "key="+file)
			if terms = append(terms, q.Terms()...); !finds(t, q, cert, "") || !finds(t, q, renewed, "") || finds(t, q, other, "") {
				t.Errorf("%T in %s", key, file)
			}
		}
		if terms = slices.Compact(terms); len(terms) != 1 {
			t.Errorf("%T has the terms %q", key, terms)
		}
		if q := parseQuery(t, KeyTerm(cert)); !finds(t, q, renewed, "") || finds(t, q, other, "") || !slices.Equal(q.Terms(), terms) {
			t.Errorf("%T by its SHA-256: %q", key, q.Terms())
		}
	}
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("hunter2 is no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ terms, text, hint string }{
		{"sna=x", `no property "sna"`, "did you mean san?"},
		{"issued_after=x", `no property "issued_after"`, "did you mean issued-after?"},
		{"serial=1", `no property "serial"`, "properties are: san, subject, key, provisioner, issued-after, issued-before"},
		{"db1.example.com", `no property "db1.example.com"`, "properties are"},
		{"san", "san has no value", "write --where san=NAME"},
		{"san=", "san has no value", ""},
		{"key=", "key has no value", "key=FILE"},
		{"san= db1", "white space", ""},
		{"san=.", `"." is not a DNS name`, ""},
		{"san=fe80::1%eth0", "has a zone", "leave out the percent sign"},
		{"san=[2001:db8::1]", "is not an IP address", "without brackets: 2001:db8::1"},
		{"san=db1.example.com:443", "names a port", "leave out the colon"},
		{"san=db1.example.com:443.", "names a port", ""},
		{"san=[2001:db8::1]:443", "is not an IP address", ""},
		{"san=@example.com", "not an e-mail address", ""},
		{"san=mike@", "not an e-mail address", ""},
		{"san=a\xffb", "not a DNS name", ""},
		{"san=xn--\u00e4\u0301\u200d.example", "not a DNS name", ""},
		{"key=" + empty, "holds no key", "a certificate, a CSR, a public or a private key"},
		{"key=sha256:1234", "is not a SHA-256", ""},
		{"key=" + empty + ".crt", "no such file", ""},
		{"issued-after=yesterday", `"yesterday" is not a time`, "36h"},
		{"issued-after=2026-13-01", "is not a time", ""},
		{"issued-before=-36h", "is not a time", ""},
		{"issued-before=0s", "is not a time", ""},
		{"issued-before=7d", "is not a time", "36h"},
		{"issued-after=2026-11-20,issued-before=2026-11-20", "no certificate is issued", "leave time between"},
		{"issued-after=1h,issued-before=2h", "no certificate is issued", ""},
	} {
		_, err := ParseQuery(t.Context(), strings.Split(tt.terms, ","), "", noon)
		if err == nil || !strings.Contains(err.Error(), tt.text) || !strings.Contains(strings.Join(problem.Hints(err), "\n"), tt.hint) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v with the hints %q", tt.terms, err, problem.Hints(err))
		}
	}
	if _, err := ParseQuery(t.Context(), []string{"issued-after=1h", "issued-after=3h", "issued-before=2h"}, "", noon); err != nil {
		t.Error(err) // three to two hours ago
	}
}

// TestLookAtCorrupt shows that a record that is not the certificate that it
// should be is an error, whatever is asked for.
func TestLookAtCorrupt(t *testing.T) {
	t.Parallel()
	cert := newRecord(t, newECKey(t), pkix.Name{CommonName: "mike"}, san(t, generalName(2, "mike.example")))
	q, miss := parseQuery(t, "san=mike.example"), parseQuery(t, "san=anna.example")
	none := func() (string, error) { return "", nil }
	for n := range len(cert.Raw) {
		if _, _, err := miss.Look("4711", cert.Raw[:n], none); err == nil {
			t.Fatalf("cut after %d bytes it is no error", n)
		}
	}
	for name, der := range map[string][]byte{"more": append(cert.Raw[:len(cert.Raw):len(cert.Raw)], 0), "nothing": nil, "text": []byte("mike.example")} {
		if _, _, err := miss.Look("4711", der, none); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, _, err := miss.Look("4712", cert.Raw, none); err == nil {
		t.Error("another serial number is no error")
	}
	if found, _, err := q.Look("4711", cert.Raw, none); err != nil || found == nil {
		t.Error("the whole one is not found", err)
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	got := parseQuery(t, "issued-after=36h", "san=B.example.", "san=a.example", "san=b.example", "san=MÜNCHEN.example", "issued-before=2026-11-21T01:00:00+01:00").Terms()
	want := []string{"san=a.example", "san=b.example", "san=xn--mnchen-3ya.example", "issued-after=36h0m0s", "issued-before=2026-11-21T00:00:00Z"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
