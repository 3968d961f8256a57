package revocation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestReadCRL shows which CRLs prove something, and what their entries say.
func TestReadCRL(t *testing.T) {
	t.Parallel()
	ca, key := newIssuer(t, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	namesake, namesakeKey := newIssuer(t, "CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	unfit, unfitKey := newIssuer(t, "unfit", x509.KeyUsageCertSign)
	list := func(issuer *x509.Certificate, key crypto.Signer, next time.Time) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(5), ThisUpdate: next.Add(-time.Hour), NextUpdate: next,
			RevokedCertificateEntries: []x509.RevocationListEntry{
				{SerialNumber: big.NewInt(100), RevocationTime: time.Unix(1, 0), ReasonCode: 4},
				{SerialNumber: big.NewInt(101), RevocationTime: time.Unix(1, 0)},
			},
		}, issuer, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := list(ca, key, time.Now().Add(time.Minute))
	changed := append([]byte{}, good...)
	changed[len(good)-1] ^= 1
	unfitCRLSigner := *unfit
	unfitCRLSigner.KeyUsage |= x509.KeyUsageCRLSign
	for _, tt := range []struct {
		name    string
		der     []byte
		wantErr string
	}{
		{"good", good, ""},
		{"out of date", list(ca, key, time.Now().Add(-time.Second)), "the CRL has been out of date since 20"},
		{"of a namesake", list(namesake, namesakeKey, time.Now().Add(time.Minute)), "the CRL is not signed by this CA"},
		{"of one that may not sign CRLs", list(&unfitCRLSigner, unfitKey, time.Now().Add(time.Minute)), "the CRL is not signed by this CA"},
		{"another signature", changed, "the CRL is not signed by this CA"},
		{"another entry", []byte(strings.Replace(string(good), "\x02\x01\x64", "\x02\x01\x65", 1)), "the CRL is not signed by this CA"},
		{"half of it", good[:len(good)/2], "reading the CRL: "},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), "reading the CRL: "},
		{"HTML", []byte("<html>"), "reading the CRL: "},
		{"nothing", nil, "reading the CRL: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			crl, err := ReadCRL(tt.der, []*x509.Certificate{unfit, ca})
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			withReason, _ := crl.Find(t.Context(), target.Serial{19: 100})
			without, _ := crl.Find(t.Context(), target.Serial{19: 101})
			none, _ := crl.Find(t.Context(), target.Serial{19: 102})
			if withReason == nil || withReason.Code == nil || *withReason.Code != 4 || !withReason.Listed || !withReason.Time.Equal(time.Unix(1, 0)) {
				t.Errorf("entry with a reason: %+v", withReason)
			}
			if without == nil || without.Code != nil || !without.Listed {
				t.Errorf("entry without a reason: %+v", without)
			}
			if none != nil || crl.Lists(target.Serial{19: 102}) || !crl.Lists(target.Serial{19: 101}) {
				t.Errorf("no entry: %+v", none)
			}
		})
	}
}

// newIssuer makes a CA certificate.
func newIssuer(t testing.TB, name string, usage x509.KeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, KeyUsage: usage, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte(rand.Text()),
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
