//go:build unix

package e2e

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/pemutil"
)

func cmdIssue(ts *testscript.TestScript, neg bool, args []string) {
	n := slices.IndexFunc(args, func(s string) bool { return strings.HasPrefix(s, "-") })
	if n < 0 {
		n = len(args)
	}
	names, flags := args[:n], args[n:]
	if neg || n == 0 {
		ts.Fatalf("usage: issue NAME... [flags of step ca certificate]")
	}
	ca := current(ts)
	errs := make([]error, n)
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() { errs[i] = ca.issue(ts.MkAbs(name), nil, flags...) })
	}
	group.Wait()
	ts.Check(errors.Join(errs...))
	for _, name := range names {
		crt, err := certificateIn(ts.MkAbs(name + ".crt"))
		ts.Check(err)
		ts.Setenv(name, crt.SerialNumber.String())
		ts.Setenv(name+"_hex", fmt.Sprintf("%#x", crt.SerialNumber))
	}
}

// issue issues FILE.crt with FILE.key, three times at most: of requests at the
// same time a CA on MariaDB refuses some (a deadlock).
func (ca *scriptCA) issue(file string, sans []string, flags ...string) (err error) {
	name := filepath.Base(file)
	for range 3 {
		var proof []string
		if !slices.Contains(flags, "--provisioner") {
			if proof, err = ca.proof(file, sans); err != nil {
				return err
			}
		}
		args := slices.Concat([]string{"ca", "certificate", name, file + ".crt", file + ".key"}, proof, flags)
		out, failed := ca.step(args...)
		if failed == nil {
			return nil
		}
		err = fmt.Errorf("issuing %s: %w\n%s", name, failed, out)
	}
	return err
}

// proof returns the flags with which step may issue a certificate: a token that
// is signed with the provisioner's own key, because a password takes a tenth of a
// second, or that password, if remote management has the key.
func (ca *scriptCA) proof(file string, sans []string) ([]string, error) {
	var names []string
	for _, san := range sans {
		names = append(names, "--san", san)
	}
	key := filepath.Join(ca.dir, "provisioner-key")
	if _, err := os.Stat(key); err != nil {
		return append(names, "--provisioner", "admin", "--provisioner-password-file", filepath.Join(ca.dir, "provisioner-password")), nil
	}
	args := []string{"ca", "token", filepath.Base(file), "--provisioner", "admin", "--key", key, "--force", "--output-file", file + ".ott"}
	if out, err := ca.step(append(args, names...)...); err != nil {
		return nil, fmt.Errorf("making a token: %w\n%s", err, out)
	}
	token, err := os.ReadFile(file + ".ott")
	return []string{"--token", strings.TrimSpace(string(token))}, err
}

func certificateIn(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// renew renews a certificate into another file. It also returns the line that
// step-ca logs: the client learns only that it is not authorized.
func (ca *scriptCA) renew(ts *testscript.TestScript, name string) (log string, err error) {
	for len(ca.renewals) > 0 {
		<-ca.renewals
	}
	out, err := ca.step("ca", "renew", "--force", "--out", ts.MkAbs(name+".renewed"),
		ts.MkAbs(name+".crt"), ts.MkAbs(name+".key"))
	if err != nil {
		err = fmt.Errorf("%s was not renewed: %s", name, out)
	}
	select {
	case log = <-ca.renewals:
	case <-time.After(tooLong):
		err = errors.Join(err, errors.New("step-ca logged no request to renew"))
	}
	return log, err
}

func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused NAME...")
	}
	for _, name := range args {
		log, err := current(ts).renew(ts, name)
		switch {
		case err == nil:
			ts.Fatalf("%s was renewed, so it is not revoked", name)
		case !strings.Contains(log, "certificate has been revoked"):
			ts.Fatalf("not because it is revoked: %v\n%s", err, log)
		}
	}
}

func cmdRenews(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: renews NAME...")
	}
	for _, name := range args {
		_, err := current(ts).renew(ts, name)
		ts.Check(err)
	}
}

func cmdCRL(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || len(args) > 2 || neg && len(args) > 1 {
		ts.Fatalf("usage: crl SERIAL [CODE], or ! crl SERIAL")
	}
	list, err := current(ts).crl()
	ts.Check(err)
	serial, ok := new(big.Int).SetString(args[0], 10)
	if !ok {
		ts.Fatalf("%q is not a serial number", args[0])
	}
	i := slices.IndexFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(serial) == 0
	})
	switch {
	case i < 0 && !neg:
		ts.Fatalf("the CRL does not hold %s", serial)
	case i >= 0 && neg:
		ts.Fatalf("the CRL holds %s", serial)
	case neg || len(args) == 1:
		return
	}
	entry := list.RevokedCertificateEntries[i]
	coded := slices.ContainsFunc(entry.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal([]int{2, 5, 29, 21}) // RFC 5280, section 5.3.1
	})
	if v := cmp.Or(current(ts).version, os.Getenv("STEP_CA")); !coded && !isAtLeast(v, "0.30") {
		return // it leaves all reasons out
	}
	if strconv.Itoa(entry.ReasonCode) != args[1] || coded != (args[1] != "0") {
		ts.Fatalf("the CRL holds %s with reason code %d (extension: %t)", serial, entry.ReasonCode, coded)
	}
}

// crl returns the CRL that the CA serves, or that the database of a stopped CA
// holds, after it has verified its signature.
func (ca *scriptCA) crl() (*x509.RevocationList, error) {
	var der []byte
	var err error
	if ca.process != nil {
		der, err = ca.get("/1.0/crl")
	} else {
		var stored map[string]string
		stored, err = ca.database()
		var info struct{ DER []byte }
		if err == nil {
			err = json.Unmarshal([]byte(stored["x509_crl/crl"]), &info)
		}
		der = info.DER
	}
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	issuer, err := ca.issuerCertificate()
	if err != nil {
		return nil, err
	}
	return list, list.CheckSignatureFrom(issuer)
}

// issuerCertificate is the CA's intermediate certificate.
func (ca *scriptCA) issuerCertificate() (*x509.Certificate, error) {
	return certificateIn(filepath.Join(ca.dir, "certs", "intermediate_ca.crt"))
}

// issuerKey is the key of the intermediate certificate.
func (ca *scriptCA) issuerKey() (crypto.Signer, error) {
	key, err := pemutil.Read(filepath.Join(ca.dir, "secrets", "intermediate_ca_key"), pemutil.WithPasswordFile(filepath.Join(ca.dir, "password")))
	if err != nil {
		return nil, err
	}
	return key.(crypto.Signer), nil
}

// client returns an HTTP client that trusts the CA's root certificate.
func (ca *scriptCA) client() (*http.Client, error) {
	root, err := certificateIn(filepath.Join(ca.dir, "certs", "root_ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	return &http.Client{Timeout: tooLong, Transport: transport}, nil
}

// get makes a request of the CA, as a relying party would.
func (ca *scriptCA) get(path string) ([]byte, error) {
	client, err := ca.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	response, err := client.Get("https://" + ca.address + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

func cmdCRLNumber(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: crl-number N")
	}
	list, err := current(ts).crl()
	ts.Check(err)
	if list.Number.String() != args[0] {
		ts.Fatalf("the CRL has the number %s", list.Number)
	}
}

func cmdCRLCheck(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: crl-check NAME SAYS")
	}
	ca := current(ts)
	list, err := ca.crl()
	ts.Check(err)
	file := ts.MkAbs(args[0] + ".crl")
	ts.Check(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw}), 0o600))
	certs := filepath.Join(ca.dir, "certs")
	out, _ := exec.Command("openssl", "verify", "-crl_check", "-CAfile", filepath.Join(certs, "root_ca.crt"),
		"-untrusted", filepath.Join(certs, "intermediate_ca.crt"), "-CRLfile", file, ts.MkAbs(args[0]+".crt")).CombinedOutput()
	if !regexp.MustCompile(`(?m)(^\S+: | depth lookup: )` + args[1] + `$`).Match(out) {
		ts.Fatalf("openssl says of %s: %s", args[0], out)
	}
}

func cmdCRLFrame(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: crl-frame")
	}
	list, err := current(ts).crl()
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s, %s, %s\n", list.Issuer, list.SignatureAlgorithm, list.NextUpdate.Sub(list.ThisUpdate))
	for _, e := range list.Extensions {
		if !e.Id.Equal([]int{2, 5, 29, 20}) { // RFC 5280, section 5.2.3: its number
			fmt.Fprintf(ts.Stdout(), "%s, critical %t: %x\n", e.Id, e.Critical, e.Value)
		}
	}
}

func cmdAllListed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: all-listed LIST")
	}
	list, err := current(ts).crl()
	ts.Check(err)
	listed := map[string]bool{}
	for _, e := range list.RevokedCertificateEntries {
		listed[e.SerialNumber.String()] = true
	}
	for _, serial := range strings.Fields(ts.ReadFile(args[0])) {
		if !listed[serial] {
			ts.Fatalf("the CRL, number %s with %d entries, does not hold %s", list.Number, len(listed), serial)
		}
	}
}

func cmdForged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: forged NAME VICTIM")
	}
	victim, err := certificateIn(ts.MkAbs(args[1] + ".crt"))
	ts.Check(err)
	public, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: victim.SerialNumber, Subject: victim.Subject, DNSNames: victim.DNSNames,
		NotBefore: victim.NotBefore, NotAfter: time.Now().Add(time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+name), pem.EncodeToMemory(block), 0o600))
	}
}

func cmdExpired(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: expired NAME AGO [LIKE]")
	}
	ago, err := time.ParseDuration(args[1])
	ts.Check(err)
	ca := current(ts)
	issuer, err := ca.issuerCertificate()
	ts.Check(err)
	key, err := ca.issuerKey()
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte(rand.Text()[:16])), Subject: pkix.Name{CommonName: args[0]}, DNSNames: []string{args[0]},
		NotBefore: time.Now().Add(-ago - time.Hour), NotAfter: time.Now().Add(-ago),
	}
	serial := template.SerialNumber.String()
	entries := map[string]string{}
	if ca.process != nil {
		ts.Check(ca.stop())
		defer func() { ts.Check(ca.start()) }()
	}
	if len(args) == 3 {
		like, err := certificateIn(ts.MkAbs(args[2] + ".crt"))
		ts.Check(err)
		template.ExtraExtensions = slices.DeleteFunc(like.Extensions, func(e pkix.Extension) bool { return !e.Id.Equal(provisioner.StepOIDProvisioner) })
		stored, err := ca.database()
		ts.Check(err)
		entries["x509_certs_data/"+serial] = stored["x509_certs_data/"+like.SerialNumber.String()]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Setenv(args[0], serial)
	entries["x509_certs/"+serial] = string(der)
	ts.Check(writeBadger(filepath.Join(ca.dir, "db"), entries))
}
