package target

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
)

// FuzzQuery gives the parser of --where any term, and looks for it in any DER. A
// query means the same however it is written: its own terms, parsed again, make
// the same query.
func FuzzQuery(f *testing.F) {
	cert := newRecord(f, newECKey(f), pkix.Name{CommonName: "mike"}, issuedBy(f, "ci"),
		san(f, generalName(dnsName, "Mike.Example."), generalName(emailName, "Mike@Example.com"), generalName(uriName, "HTTPS://Mike.example/A"), generalName(ipName, "\x0a\x00\x00\x01")))
	for _, term := range []string{
		"san=mike.example", "san=MÜNCHEN.example", "san=Mike@EXAMPLE.com", "san=https://mike.EXAMPLE/A", "san=10.0.0.1", "san=::ffff:10.0.0.1", "san=fe80::1%eth0",
		"subject=mike", "provisioner=ci", "issued-after=36h", "issued-before=2026-11-20", "issued-before=2026-11-20T08:00:00+01:00", "sna=x", "key=sha256:00", "san=\xff", "san=urn:x:%zz",
	} {
		f.Add(term, cert.Raw)
	}
	f.Add("subject=mike", []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, term string, der []byte) {
		if name, value, _ := strings.Cut(term, "="); name == "key" && !strings.HasPrefix(value, keyDigest) {
			return // any file of this machine
		}
		q, err := ParseQuery(t.Context(), []string{term}, "", noon)
		if err != nil {
			return
		}
		again, err := ParseQuery(t.Context(), q.Terms(), "", noon)
		if err != nil || !slices.Equal(again.Terms(), q.Terms()) {
			t.Fatalf("%q became %q and then %q: %v", term, q.Terms(), again.Terms(), err)
		}
		none := func() (string, error) { return "", nil }
		for _, der := range [][]byte{der, cert.Raw} {
			first, _, err := q.Look("4711", der, none)
			second, _, errAgain := again.Look("4711", der, none)
			if (first == nil) != (second == nil) || (err == nil) != (errAgain == nil) {
				t.Errorf("%q and %q do not find the same", q.Terms(), again.Terms())
			}
		}
		if finds(t, q, cert, "") != again.Match(cert, "ci") {
			t.Errorf("%q: the quick look is wrong", q.Terms())
		}
	})
}

// FuzzRecord takes any DER apart: what the quick look takes for a certificate it
// must have read as crypto/x509 does, which also takes some that are no DER.
func FuzzRecord(f *testing.F) {
	cert := newRecord(f, newECKey(f), pkix.Name{CommonName: "mike"}, issuedBy(f, "ci"))
	f.Add(cert.Raw)
	f.Add(cert.Raw[:len(cert.Raw)-1])
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := readRecord(der)
		parsed, parseErr := x509.ParseCertificate(der)
		if err != nil || parseErr != nil {
			return
		}
		if !r.notBefore.Equal(parsed.NotBefore) || !r.hasSerial(parsed.SerialNumber.String()) || string(r.key) != string(parsed.RawSubjectPublicKeyInfo) {
			t.Error("the quick look has read something else")
		}
	})
}
