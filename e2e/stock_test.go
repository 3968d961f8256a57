//go:build unix

package e2e

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/smallstep/certificates/db"
	"go.step.sm/crypto/pemutil"
)

// certificatesFile is a table; the comment at its top explains it.
const certificatesFile = "testdata/where/certificates"

// A stock is what the database of a CA has after it has issued the certificates of
// the table. It is made once, for all scripts: their CAs have the same keys.
type stock struct {
	entries      map[string]string // table/key to value
	provisioners []any             // of ca.json, besides admin
	certs        []*stocked
	root, issuer *x509.Certificate // of the CA: older than the certificates that expired
}

// A stocked is a certificate of the table.
type stocked struct {
	name, how, of  string // of: what = says of how
	cn             string
	sans           [][2]string // types and names
	options        map[string]string
	cert           *x509.Certificate
	key            crypto.Signer
	revoked, stuck bool
}

// theStock makes the stock.
var theStock = sync.OnceValues(func() (*stock, error) {
	table, err := os.ReadFile(certificatesFile)
	if err != nil {
		return nil, err
	}
	s := &stock{certs: parseStock(string(table))}
	m := stockMaker{stock: s, ca: &scriptCA{
		name: "ca", dir: filepath.Join(sharedDir, "stock"), env: []string{"HOME=" + sharedDir}, renewals: make(chan string, 100),
	}}
	return s, m.run()
})

// parseStock reads the table.
func parseStock(table string) (list []*stocked) {
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		s := &stocked{name: words[0], options: map[string]string{}}
		s.how, s.of, _ = strings.Cut(words[1], "=")
		for _, word := range words[2:] {
			name, value, _ := strings.Cut(word, "=")
			switch name {
			case "san":
				kind, san, _ := strings.Cut(value, ":")
				s.sans = append(s.sans, [2]string{kind, san})
			case "cn":
				s.cn = value
			default:
				s.options[name] = value
			}
		}
		_, s.revoked = s.options["revoked"]
		_, s.stuck = s.options["stuck"]
		list = append(list, s)
	}
	return list
}

// adopt gives a CA the older certificates.
func (s *stock) adopt(ca *scriptCA) error {
	for name, cert := range map[string]*x509.Certificate{"root_ca.crt": s.root, "intermediate_ca.crt": s.issuer} {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		if err := os.WriteFile(filepath.Join(ca.dir, "certs", name), text, 0o600); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(s.root.Raw)
	was := ca.fingerprint
	ca.fingerprint = hex.EncodeToString(sum[:])
	return ca.configure(was, ca.fingerprint)
}

// configure gives a CA the provisioners of the stock.
func (s *stock) configure(config map[string]any) error {
	authority := authorityOf(config)
	authority["provisioners"] = append(authority["provisioners"].([]any), s.provisioners...)
	return nil
}

// named returns a certificate that was made before.
func (s *stock) named(name string) *stocked {
	i := slices.IndexFunc(s.certs, func(c *stocked) bool { return c.name == name })
	return s.certs[i]
}

// fill gives a CA of a script the stock: its provisioners, what is in its
// database, and NAME.crt, NAME.key and $NAME of every certificate.
func (s *stock) fill(ts *testscript.TestScript, ca *scriptCA) error {
	if err := ca.change(s.configure); err != nil {
		return err
	}
	if err := s.adopt(ca); err != nil {
		return err
	}
	ts.Setenv(ca.name+"_fingerprint", ca.fingerprint)
	issuer := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.issuer.Raw})
	for _, c := range s.certs {
		ts.Setenv(c.name, c.cert.SerialNumber.String())
		ts.Setenv(c.name+"_hex", c.cert.SerialNumber.Text(16))
		chain := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}), issuer...)
		key, err := pemutil.Serialize(c.key)
		if err != nil {
			return err
		}
		for suffix, content := range map[string][]byte{".crt": chain, ".key": pem.EncodeToMemory(key)} {
			if err := os.WriteFile(ts.MkAbs(c.name+suffix), content, 0o600); err != nil {
				return err
			}
		}
	}
	return ca.put(s.entries)
}

// put writes entries into the database of a stopped CA, as step-ca would.
func (ca *scriptCA) put(entries map[string]string) error {
	var config struct{ DB *db.Config }
	if err := readJSON(filepath.Join(ca.dir, "config", "ca.json"), &config); err != nil {
		return err
	}
	switch config.DB.Type {
	case "badger":
		return writeBadger1(config.DB.DataSource, entries)
	case "badgerv2":
		return writeBadger(config.DB.DataSource, entries)
	}
	opened, err := db.New(config.DB)
	if err != nil {
		return err
	}
	for path, value := range entries {
		if table, key, _ := strings.Cut(path, "/"); key != "" {
			if err := opened.(*db.DB).Set([]byte(table), []byte(key), []byte(value)); err != nil {
				return err
			}
		}
	}
	return opened.Shutdown()
}
