package offline

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
	"io"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"go.step.sm/crypto/jose"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // where step-ca tells of provisioners that are not initialized
	os.Exit(m.Run())
}

// A fixture is a CA in a directory of its own, with CRLs, a key that is not
// encrypted, and one certificate in its database.
type fixture struct {
	config, otherKey string // files
	leaf             *x509.Certificate
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rootKey, rootCert := issue(t, "root", nil, nil)
	key, cert := issue(t, "intermediate", rootKey, rootCert)
	leafKey, leaf := issue(t, "mike", key, cert)
	check(errors.Join(
		writePEM(path("root.crt"), "CERTIFICATE", rootCert.Raw), writePEM(path("ca.crt"), "CERTIFICATE", cert.Raw),
		writeKey(path("ca.key"), key), writeKey(path("mike.key"), leafKey)))
	stored, err := db.New(&db.Config{Type: "bbolt", DataSource: path("db")})
	check(err)
	check(errors.Join(stored.(db.CertificateStorer).StoreCertificate(leaf), stored.Shutdown()))
	jwk, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
	check(err)
	public := jwk.Public()
	f := &fixture{config: path("ca.json"), otherKey: path("mike.key"), leaf: leaf}
	check(os.WriteFile(f.config, []byte("{}"), 0o600))
	f.change(t, func(cfg map[string]any) {
		cfg["root"], cfg["crt"], cfg["key"] = path("root.crt"), path("ca.crt"), path("ca.key")
		cfg["address"], cfg["dnsNames"] = ":0", []string{"ca.example.com"}
		cfg["db"] = map[string]any{"type": "bbolt", "dataSource": path("db")}
		cfg["crl"] = map[string]any{"enabled": true}
		cfg["tls"] = map[string]any{"minVersion": 1.3, "maxVersion": 1.3} // step-ca's default is one variable for all CAs of a process
		cfg["authority"] = map[string]any{"provisioners": []any{
			map[string]any{"type": "JWK", "name": "admin", "key": &public},
			map[string]any{"type": "OIDC", "name": "nobody is asked", "clientID": "x", "configurationEndpoint": "https://127.0.0.1:1/"},
		}}
	})
	return f
}

// change rewrites the CA's ca.json.
func (f *fixture) change(t *testing.T, amend func(cfg map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(f.config)
	cfg := map[string]any{}
	err = errors.Join(err, json.Unmarshal(text, &cfg))
	amend(cfg)
	text, jsonErr := json.Marshal(cfg)
	if err := errors.Join(err, jsonErr, os.WriteFile(f.config, text, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// list returns a list of the one certificate.
func (f *fixture) list() *target.List {
	list := &target.List{}
	serial, _ := target.SerialOf(f.leaf.SerialNumber)
	list.Add(serial, nil)
	return list
}

// issue makes a key and its certificate, which is self-signed without a parent.
// All but mike are CAs.
func issue(t *testing.T, name string, parentKey crypto.Signer, parent *x509.Certificate) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(time.Now().UnixNano()), 60), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: name != "mike", KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	if parent == nil {
		parentKey, parent = key, template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err, writePEM(file, "PRIVATE KEY", der))
}
