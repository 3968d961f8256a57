package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
)

// TestReadCRL shows which CRLs a CA that is a fake may offer, and which of them
// prove something.
func TestReadCRL(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, key := newIssuer(t, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	namesake, namesakeKey := newIssuer(t, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	unfit, unfitKey := newIssuer(t, "unfit", x509.KeyUsageCertSign)
	list := func(issuer *x509.Certificate, key crypto.Signer, next time.Time) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(5), ThisUpdate: next.Add(-time.Hour), NextUpdate: next,
			RevokedCertificateEntries: []x509.RevocationListEntry{
				{SerialNumber: big.NewInt(100), RevocationTime: now.Add(-time.Minute), ReasonCode: 4},
				{SerialNumber: big.NewInt(101), RevocationTime: now.Add(-time.Minute)},
			},
		}, issuer, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := list(ca, key, now.Add(time.Minute))
	changed := func(i int) []byte {
		der := append([]byte{}, good...)
		der[i] ^= 1
		return der
	}
	unfitCRLSigner := *unfit
	unfitCRLSigner.KeyUsage |= x509.KeyUsageCRLSign
	tests := []struct {
		name    string
		status  int
		body    []byte
		wantErr string
	}{
		{"good", 200, good, ""},
		{"out of date", 200, list(ca, key, now.Add(-time.Second)), "the CRL is out of date since 20"},
		{"of a namesake", 200, list(namesake, namesakeKey, now.Add(time.Minute)), "the CRL is not signed by this CA"},
		{"of who may not sign CRLs", 200, list(&unfitCRLSigner, unfitKey, now.Add(time.Minute)), "the CRL is not signed by this CA"},
		{"another signature", 200, changed(len(good) - 1), "the CRL is not signed by this CA"},
		{"another entry", 200, []byte(strings.Replace(string(good), "\x02\x01\x64", "\x02\x01\x65", 1)), "the CRL is not signed by this CA"},
		{"half of it", 200, good[:len(good)/2], "reading the CRL: "},
		{"PEM", 200, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), "reading the CRL: "},
		{"HTML", 200, []byte("<html>"), "reading the CRL: "},
		{"nothing", 200, nil, "reading the CRL: "},
		{"none", 404, []byte(`{"status":404,"message":"no CRL available"}`), "the CA has no CRL: no CRL available (HTTP 404)"},
		{"no answer", 502, []byte("bad gateway"), "answered: bad gateway (HTTP 502)"},
		{"redirect", 302, nil, "answered with a redirect to"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/1.0/intermediates" {
					_ = json.NewEncoder(w).Encode(api.IntermediatesResponse{Certificates: []api.Certificate{{Certificate: unfit}, {Certificate: ca}}})
					return
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write(tt.body)
			}))
			t.Cleanup(server.Close)
			outcomes := []*outcome{
				{status: statusRevoked, target: &target{serial: serialNumber{19: 100}}},
				{status: statusUnknown, err: noAnswer{errors.New("?")}, target: &target{serial: serialNumber{19: 101}}},
				{status: statusFailed, err: errors.New("!"), target: &target{serial: serialNumber{19: 102}}},
			}
			r := newReport(&options{verify: true}, nil, nil)
			r.kept = outcomes
			err := r.prove(t.Context(), fakeCA(t, server))
			if tt.wantErr != "" {
				if exitCode(err) != exitIncomplete || !strings.Contains(fmt.Sprint(err), "1 revocation is accepted, but not proven: ") || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want one with %q and the code %d", err, tt.wantErr, exitIncomplete)
				}
				for _, o := range outcomes {
					if o.verified != nil || o.record != nil {
						t.Errorf("%s is on record: %v", o.target.serial, o.record)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range outcomes {
				text := fmt.Sprint(o.status, " ", *o.verified)
				if o.record != nil {
					text += " " + reasonName(o.record.code)
				}
				got = append(got, text)
			}
			if got, want := strings.Join(got, ", "), "revoked true superseded, already-revoked true unspecified, failed false"; got != want {
				t.Errorf("outcomes: %s; want %s", got, want)
			}
		})
	}
}

// newIssuer makes a CA certificate.
func newIssuer(t *testing.T, name string, usage x509.KeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, KeyUsage: usage, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte(name),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
