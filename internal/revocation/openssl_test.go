package revocation

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// openssl returns what "openssl verify -crl_check" says to each certificate with a
// CRL: OK or its error. Trusted are the issuers.
func openssl(t *testing.T, crl []byte, issuers []entity, certs map[string]*x509.Certificate) map[string]string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, ders ...[]byte) string {
		var b bytes.Buffer
		for _, der := range ders {
			_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	var trusted [][]byte
	for _, issuer := range issuers {
		trusted = append(trusted, issuer.cert.Raw)
	}
	args := []string{"verify", "-crl_check", "-CAfile", write("issuers", "CERTIFICATE", trusted...), "-CRLfile", write("crl", "X509 CRL", crl)}
	for name, cert := range certs {
		args = append(args, write(name, "CERTIFICATE", cert.Raw))
	}
	out, _ := exec.Command("openssl", args...).CombinedOutput() // it fails if one is revoked
	said := map[string]string{}
	var last string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if _, text, found := strings.Cut(lines.Text(), " depth lookup: "); found {
			last = text
		} else if file, found := strings.CutSuffix(lines.Text(), ": OK"); found {
			said[filepath.Base(file)] = "OK"
		} else if file, found := strings.CutSuffix(lines.Text(), ": verification failed"); found {
			said[filepath.Base(file)] = last
		}
	}
	if len(said) != len(certs) {
		t.Fatalf("openssl verify: %s", out)
	}
	return said
}

// needOpenSSL skips the test where there is no OpenSSL, unless that is a CI job.
func needOpenSSL(t *testing.T) {
	t.Helper()
	out, err := exec.Command("openssl", "version").Output()
	switch {
	case err == nil && regexp.MustCompile(`^OpenSSL [3-9]\.`).Match(out):
	case os.Getenv("CI") != "":
		t.Fatalf("OpenSSL 3 is needed: %v, %s", err, out)
	default:
		t.Skipf("OpenSSL 3 is needed: %v, %s", err, out)
	}
}

// verdict is what openssl says where our Fit is this.
func verdict(fit Fit, listed bool) string {
	switch {
	case fit.Error != "":
		return fit.Error
	case listed:
		return "certificate revoked"
	}
	return "OK"
}

// TestFit compares what is said of each CRL and each certificate, listed and not,
// with what OpenSSL says.
func TestFit(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	ca, other, namesake := newEntity(t, "The CA"), newEntity(t, "Other"), newEntity(t, "The CA")
	spelt, keyless := *ca.cert, *ca.cert
	spelt.RawSubject = []byte(dir(utf8Text, " the  CA"))[2:]
	keyless.SubjectKeyId = nil
	certs := map[string]*x509.Certificate{}
	serial := int64(100)
	add := func(name string, issuer entity, points string, isCA bool) {
		for _, kind := range []string{"", ", listed"} {
			certs[name+kind] = issuer.issue(t, serial, points, isCA)
			serial++
		}
	}
	for name, points := range pointsOf {
		add(name, ca, points, false)
	}
	add("a CA's", ca, pointsOf["A"], true)
	add("another CA's", other, pointsOf["A"], false)
	add("a namesake's", namesake, pointsOf["A"], false)
	add("of the CA, spelt anew", entity{&spelt, ca.key}, pointsOf["A"], false)
	add("of a key without a name", entity{&keyless, ca.key}, pointsOf["A"], false)
	counts := map[string]int{}
	for name, point := range issuingPoints {
		crl := ca.list(t)
		if point.der != "" {
			crl = ca.list(t, issuingPoint(point.der))
		}
		said := openssl(t, crl, []entity{ca, other, namesake}, certs)
		list, err := ReadCRL(crl, []*x509.Certificate{ca.cert})
		for of, cert := range certs {
			counts[said[of]]++
			serial, _ := target.SerialOf(cert.SerialNumber)
			scope, _ := target.CertificateOf(cert).Scope()
			switch {
			case err == nil:
				fit, err := list.Fit(scope, list.Lists(serial))
				if got := verdict(fit, list.Lists(serial)); err != nil || got != said[of] {
					t.Errorf("CRL %s, certificate %s: %q (%s), %v; OpenSSL says %q", name, of, got, fit.Why, err, said[of])
				}
			case !scope.IsCA && (said[of] == "OK" || said[of] == "certificate revoked"):
				t.Errorf("CRL %s is refused, and OpenSSL says %q of certificate %s", name, said[of], of)
			}
		}
	}
	if len(counts) != 4 {
		t.Errorf("OpenSSL says %v", counts)
	}
}
