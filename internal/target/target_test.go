package target

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// A testCA issues certificates.
type testCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t *testing.T, name string) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}}
	ca.cert = ca.sign(t, ca.cert)
	return ca
}

func (ca *testCA) sign(t *testing.T, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue returns a certificate that has expired.
func (ca *testCA) issue(t *testing.T, serial int64) *x509.Certificate {
	t.Helper()
	return ca.sign(t, &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(-time.Minute)})
}

func pemOf(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, cert := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return b.String()
}

func TestList(t *testing.T) {
	t.Parallel()
	a, b, c := Serial{19: 1}, Serial{18: 1}, Serial{19: 9}
	known := &Certificate{Subject: "CN=mike"}
	l := &List{All: []Target{{Serial: a}}}
	l.DropIndex()
	for _, tt := range []struct {
		serial Serial
		cert   *Certificate
		isNew  bool
	}{{a, nil, false}, {b, nil, true}, {b, known, false}, {b, &Certificate{}, false}, {a, nil, false}, {c, known, true}} {
		if got := l.Add(tt.serial, tt.cert); got != tt.isNew {
			t.Errorf("Add(%v) = %t", tt.serial, got)
		}
		l.DropIndex()
	}
	if want := []Target{{Serial: a}, {Serial: b, Cert: known}, {Serial: c, Cert: known}}; !slices.Equal(l.All, want) {
		t.Errorf("list %v, want %v", l.All, want)
	}
	l.DropIndex()
	if found, ok := l.Find(b); !ok || found != &l.All[1] {
		t.Errorf("Find: %v, %t", found, ok)
	}
	if found, ok := l.Find(Serial{1}); ok || found != nil {
		t.Errorf("Find: %v, %t", found, ok)
	}
	// printf '1\n9\n256\n' | sha256sum
	if got := l.Digest(); got != "sha256:58fd860c6a0f80dd67ef038e96bdef8cdc91be423fd054a34076e6c12021af99" {
		t.Errorf("digest %s", got)
	}
}

func TestCertificateOf(t *testing.T) {
	t.Parallel()
	end := time.Now()
	cert := CertificateOf(&x509.Certificate{
		Subject: pkix.Name{CommonName: "mike"}, NotAfter: end, DNSNames: []string{"mike.example.com"}, EmailAddresses: []string{"mike@example.com"},
		IPAddresses: []net.IP{net.IPv6loopback}, URIs: []*url.URL{{Scheme: "spiffe", Host: "mike"}},
	})
	if got := strings.Join(cert.SANs, " "); cert.Subject != "CN=mike" || !cert.NotAfter.Equal(end) || got != "mike.example.com mike@example.com ::1 spiffe://mike" {
		t.Errorf("%+v", cert)
	}
}

// TestScope shows what is kept of what a certificate says about CRLs, and that it
// is there once.
func TestScope(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ours")
	withPoints := func(points ...string) *Certificate {
		cert := *ca.issue(t, 1)
		for _, p := range points {
			cert.Extensions = append(cert.Extensions, pkix.Extension{Id: oidDistributionPoints, Value: []byte(p)})
		}
		return CertificateOf(&cert)
	}
	for _, tt := range []struct {
		cert  *Certificate
		want  Scope
		known bool
	}{
		{nil, Scope{}, false},
		{&Certificate{}, Scope{}, false},
		{withPoints(), Scope{Issuer: string(ca.cert.RawSubject), KeyID: string(ca.cert.SubjectKeyId)}, true},
		{withPoints("x"), Scope{Issuer: string(ca.cert.RawSubject), KeyID: string(ca.cert.SubjectKeyId), Points: "x"}, true},
		{withPoints(strings.Repeat("x", 2*maxPoints)), Scope{
			Issuer: string(ca.cert.RawSubject), KeyID: string(ca.cert.SubjectKeyId), Points: strings.Repeat("x", maxPoints)}, true},
	} {
		if got, known := tt.cert.Scope(); got != tt.want || known != tt.known {
			t.Errorf("%+v, %t; want %+v", got, known, tt.want)
		}
	}
	if one, other := withPoints("x"), withPoints("x"); one.scope != other.scope {
		t.Error("the same is kept twice")
	}
}

func TestCheckIssued(t *testing.T) {
	t.Parallel()
	ours, older, other := newCA(t, "ours"), newCA(t, "ours"), newCA(t, "other")
	for _, tt := range []struct {
		name    string
		from    []*testCA
		wantErr string
	}{
		{"none", nil, ""},
		{"ours", []*testCA{ours, older, ours}, ""},
		{"another", []*testCA{ours, other}, `the certificate in file 1 was not issued by this CA but by "CN=other"`},
		{"two others", []*testCA{other, ours, other}, `the certificate in file 0 was not issued by this CA but by "CN=other", and 1 other was not either`},
		{"three others", []*testCA{other, other, other}, `, and 2 others were not either`},
	} {
		list := func() *List {
			l := &List{}
			l.Add(Serial{1}, nil)
			for i, ca := range tt.from {
				l.Add(Serial{0, byte(i + 1)}, certificateIn(ca.issue(t, 1), "file "+string(rune('0'+i))))
			}
			return l
		}
		l, dropped := list(), list()
		if l.HasCertificates() != (len(tt.from) > 0) {
			t.Errorf("%s: has certificates: %t", tt.name, l.HasCertificates())
		}
		err := l.CheckIssued([]*x509.Certificate{ours.cert, older.cert})
		if tt.wantErr != "" {
			check(t, tt.name, err, tt.wantErr, "--allow-unknown")
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		dropped.DropCertificates()
		if slices.ContainsFunc(dropped.All, func(t Target) bool {
			_, known := t.Cert.Scope()
			return known || t.Cert != nil && !t.Cert.NotAfter.IsZero()
		}) {
			t.Errorf("%s: an end or a scope that nobody has checked", tt.name)
		}
		if l.HasCertificates() || dropped.HasCertificates() || len(dropped.All) != len(tt.from)+1 {
			t.Errorf("%s: certificates are left", tt.name)
		}
		if err := dropped.CheckIssued(nil); err != nil {
			t.Errorf("%s: dropped: %v", tt.name, err)
		}
	}
}
