package revocation

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzCRL reads a CRL in DER, whose signature does not count. What crypto/x509
// reads in it as a whole, we read one by one.
func FuzzCRL(f *testing.F) {
	ca, key := newIssuer(f, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	for _, entries := range [][]x509.RevocationListEntry{
		nil,
		{{SerialNumber: big.NewInt(100), RevocationTime: time.Unix(7, 0), ReasonCode: 4}},
		{{SerialNumber: big.NewInt(100), RevocationTime: time.Unix(7, 0)}, {SerialNumber: new(big.Int).Lsh(big.NewInt(0x7f), 19*8), RevocationTime: time.Unix(1<<33, 0), ReasonCode: 9}},
	} {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(5), ThisUpdate: time.Unix(7, 0), NextUpdate: time.Unix(1<<33, 0), RevokedCertificateEntries: entries,
		}, ca, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(der[:len(der)/2])
		f.Add(append(der, 0))
	}
	f.Add([]byte("\x30\x84\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, der []byte) {
		defer bounded()()
		whole, wholeErr := x509.ParseRevocationList(der)
		p, err := split(der)
		if err != nil {
			return
		}
		l := &CRL{parts: p}
		var indexErr error
		if l.list, err = p.with(nil); err == nil {
			_, _ = readScope(l.list)
		}
		l.index, indexErr = p.indexed()
		if wholeErr != nil || err != nil || indexErr != nil {
			return // crypto/x509 passes over what stands behind a CRL or its extensions, for example
		}
		compare(t, l, whole)
	})
}

// compare makes sure that a CRL says what crypto/x509 has read.
func compare(t *testing.T, l *CRL, whole *x509.RevocationList) {
	t.Helper()
	if !bytes.Equal(l.list.RawIssuer, whole.RawIssuer) || !l.list.NextUpdate.Equal(whole.NextUpdate) || l.list.Number.Cmp(whole.Number) != 0 || !bytes.Equal(l.list.Signature, whole.Signature) {
		t.Errorf("the frame is %+v, want %+v", l.list, whole)
	}
	seen := map[target.Serial]bool{}
	for _, e := range whole.RevokedCertificateEntries {
		s, ok := target.SerialOf(e.SerialNumber)
		if !ok || seen[s] {
			continue
		}
		seen[s] = true
		r, err := l.Find(t.Context(), s)
		if err != nil || r == nil || !r.Time.Equal(e.RevocationTime) || (r.Code == nil) != (e.ReasonCode == 0) || r.Code != nil && *r.Code != e.ReasonCode {
			t.Errorf("the entry of %s is %+v, %v; want %+v", s, r, err, e)
		}
	}
	if len(seen) > len(l.index) {
		t.Errorf("%d serial numbers, and %d entries", len(seen), len(l.index))
	}
}

// FuzzObject writes outcomes with any texts. They are one line each that shows as
// it is, and is read again with the same texts.
func FuzzObject(f *testing.F) {
	f.Add("4660", "CN=mike", "mike.example", "text")
	f.Add("\xff", "\u202e\U0001d159\x00\x1b[2J\n", "\u05d0", "<&>\u2028")
	f.Fuzz(func(t *testing.T, serial, subject, name, text string) {
		defer bounded()()
		o := Object{Serial: serial, Status: Revoked, Subject: subject, SANs: []string{name, name + name}, CA: "https://ca", Error: text}
		line, err := o.Line()
		if err != nil || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("%q, %v", line, err)
		}
		if strings.ContainsFunc(string(line[:len(line)-1]), func(r rune) bool { return !problem.IsPlain(r) }) {
			t.Errorf("a character that does not show is in %q", line)
		}
		want := o
		for _, text := range []*string{&want.Serial, &want.Subject, &want.SANs[0], &want.SANs[1], &want.Error} {
			*text = string([]rune(*text)) // in UTF-8, as JSON is
		}
		var ours, theirs Object
		if err := target.ReadObject(line, &ours); err != nil || !reflect.DeepEqual(ours, want) {
			t.Errorf("%q is %+v, %v", line, ours, err)
		}
		if err := json.Unmarshal(line, &theirs); err != nil || !reflect.DeepEqual(theirs, want) {
			t.Errorf("as JSON %q is %+v, %v", line, theirs, err)
		}
	})
}
