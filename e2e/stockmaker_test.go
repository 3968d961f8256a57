//go:build unix

package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A stockMaker makes a stock with a CA of its own.
type stockMaker struct {
	*stock
	ca        *scriptCA
	jwks      map[string]*jose.JSONWebKey // of JWK provisioners
	issuerKey crypto.Signer
}

func (m *stockMaker) run() error {
	if err := m.init(); err != nil {
		return fmt.Errorf("making a CA for the stock: %w", err)
	}
	for _, s := range m.certs {
		if err := m.make(s); err != nil {
			return fmt.Errorf("making the certificate %s: %w", s.name, err)
		}
	}
	if err := m.ca.stop(); err != nil {
		return err
	}
	stored, err := readBadger(filepath.Join(m.ca.dir, "db"))
	if err != nil {
		return err
	}
	maps.DeleteFunc(stored, func(key, _ string) bool { // the tables stay, and what is in these
		return strings.Contains(key, "/") && !strings.HasPrefix(key, "x509_certs/") && !strings.HasPrefix(key, "x509_certs_data/")
	})
	maps.Copy(m.entries, stored)
	return nil
}

// init starts the CA.
func (m *stockMaker) init() error {
	t, err := m.ca.copyTemplate(initOptions{})
	if err != nil {
		return err
	}
	m.entries, m.ca.address, m.ca.fingerprint = map[string]string{}, freeAddress(), t.fingerprint
	if err := m.ca.configure(templateAddress, m.ca.address); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(t.dir, "provisioner-key"))
	if err != nil {
		return err
	}
	admin, err := jose.ParseKey(key)
	if err != nil {
		return err
	}
	m.jwks = map[string]*jose.JSONWebKey{"admin": admin}
	if m.issuerKey, err = m.ca.issuerKey(); err != nil {
		return err
	}
	if err := m.reissue(); err != nil {
		return err
	}
	for _, name := range []string{"ops", "OPS", "quiet", "late", "gone"} {
		jwk, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
		if err != nil {
			return err
		}
		if m.jwks[name] = jwk; name == "gone" {
			continue
		}
		public := jwk.Public()
		m.provisioners = append(m.provisioners, map[string]any{"type": "JWK", "name": name, "key": &public, "claims": map[string]bool{
			"allowRenewalAfterExpiry": name == "late", "disableSmallstepExtensions": name == "quiet",
		}})
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.Raw})
	m.provisioners = append(m.provisioners, map[string]any{"type": "X5C", "name": "devices", "roots": root}, map[string]any{"type": "ACME", "name": "web"})
	if err := m.adopt(m.ca); err != nil {
		return err
	}
	if err := m.ca.change(m.configure); err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(freeAddress())
	m.ca.flags = []string{"--insecure", "--acme-http-port", port}
	return m.ca.start()
}

// reissue makes the CA's own certificates older.
func (m *stockMaker) reissue() error {
	rootKey, err := pemutil.Read(filepath.Join(m.ca.dir, "secrets", "root_ca_key"), pemutil.WithPasswordFile(filepath.Join(m.ca.dir, "password")))
	if err != nil {
		return err
	}
	old := time.Now().Add(-1000 * time.Hour)
	renewed := func(name string, parent *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
		cert, err := certificateIn(filepath.Join(m.ca.dir, "certs", name))
		if err != nil {
			return nil, err
		}
		cert.NotBefore = old
		if parent == nil {
			parent = cert
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, public, rootKey)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	if m.root, err = renewed("root_ca.crt", nil, rootKey.(crypto.Signer).Public()); err == nil {
		m.issuer, err = renewed("intermediate_ca.crt", m.root, m.issuerKey.Public())
	}
	return err
}

// make makes a certificate in the way that the table says.
func (m *stockMaker) make(s *stocked) (err error) {
	switch s.how {
	case "renew":
		s.key = m.named(s.of).key
		s.cert, err = m.request(m.named(s.of), "/renew", nil)
		return err
	case "rekey":
		if s.key, err = newKey("ecdsa"); err != nil {
			return err
		}
		old := m.named(s.of)
		csr, err := csrOf(&stocked{cn: old.cn, key: s.key})
		if err == nil {
			s.cert, err = m.request(old, "/rekey", map[string]string{"csr": csr})
		}
		return err
	}
	if s.key, err = m.keyFor(s.options["key"]); err != nil {
		return err
	}
	switch s.how {
	case "hand":
		return m.sign(s)
	case "web":
		return m.order(s)
	}
	csr, err := csrOf(s)
	if err != nil {
		return err
	}
	token, err := m.token(s)
	if err == nil {
		s.cert, err = m.request(nil, "/sign", map[string]string{"csr": csr, "ott": token})
	}
	return err
}

func (m *stockMaker) keyFor(what string) (crypto.Signer, error) {
	if what == "" || what == "rsa" || what == "ed25519" {
		return newKey(what)
	}
	return m.named(what).key, nil
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "rsa":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// csrOf makes a certificate signing request.
func csrOf(s *stocked) (string, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: s.cn}}
	for _, san := range s.sans {
		switch kind, name := san[0], san[1]; kind {
		case "dns":
			template.DNSNames = append(template.DNSNames, name)
		case "ip":
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(name))
		case "email":
			template.EmailAddresses = append(template.EmailAddresses, name)
		case "uri":
			u, err := url.Parse(name)
			if err != nil {
				return "", err
			}
			template.URIs = append(template.URIs, u)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, s.key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

// token makes a token for the provisioner of a certificate.
func (m *stockMaker) token(s *stocked) (string, error) {
	now := time.Now()
	claims := map[string]any{
		"iss": s.how, "sub": s.cn, "aud": "https://" + m.ca.address + "/1.0/sign", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenLife).Unix(),
	}
	var sans []string
	for _, san := range s.sans {
		sans = append(sans, san[1])
	}
	claims["sans"] = sans
	options := new(jose.SignerOptions).WithType("JWT")
	key := jose.SigningKey{Algorithm: jose.ES256, Key: m.jwks[s.how]}
	if s.how == "devices" {
		device, err := newKey("ecdsa")
		if err != nil {
			return "", err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		}, m.issuer, device.Public(), m.issuerKey)
		if err != nil {
			return "", err
		}
		claims["aud"] = claims["aud"].(string) + "#x5c/" + s.how
		options = options.WithHeader("x5c", [][]byte{der, m.issuer.Raw})
		key = jose.SigningKey{Algorithm: jose.ES256, Key: device}
	}
	signer, err := jose.NewSigner(key, options)
	if err != nil {
		return "", err
	}
	return jose.Signed(signer).Claims(claims).CompactSerialize()
}

// request asks the CA for a certificate, over mTLS with an old one.
func (m *stockMaker) request(old *stocked, path string, body map[string]string) (*x509.Certificate, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	client, err := m.ca.clientWith(old)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	response, err := client.Post("https://"+m.ca.address+"/1.0"+path, "application/json", bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	if err != nil {
		return nil, err
	}
	var issued struct{ CRT string }
	if err := json.Unmarshal(answer, &issued); err != nil {
		return nil, err
	}
	return pemutil.ParseCertificate([]byte(issued.CRT))
}

// clientWith returns an HTTP client with a certificate of the stock, or without.
func (ca *scriptCA) clientWith(s *stocked) (*http.Client, error) {
	client, err := ca.client()
	if err != nil || s == nil {
		return client, err
	}
	issuer, err := ca.issuerCertificate()
	if err != nil {
		return nil, err
	}
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{
		Certificate: [][]byte{s.cert.Raw, issuer.Raw}, PrivateKey: s.key,
	}}
	return client, nil
}

// order gets a certificate by ACME, for an IP address of this machine.
func (m *stockMaker) order(s *stocked) error {
	web, err := m.ca.client()
	if err != nil {
		return err
	}
	account, err := newKey("ecdsa")
	if err != nil {
		return err
	}
	client := &acme.Client{Key: account, HTTPClient: web, DirectoryURL: "https://" + m.ca.address + "/acme/web/directory"}
	ctx, cancel := testContext()
	defer cancel()
	if _, err := client.Register(ctx, &acme.Account{}, acme.AcceptTOS); err != nil {
		return err
	}
	order, err := client.AuthorizeOrder(ctx, acme.IPIDs(s.sans[0][1]))
	if err != nil {
		return err
	}
	authorization, err := client.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		return err
	}
	i := slices.IndexFunc(authorization.Challenges, func(c *acme.Challenge) bool { return c.Type == "http-01" })
	challenge := authorization.Challenges[i]
	proof, err := client.HTTP01ChallengeResponse(challenge.Token)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.sans[0][1], m.ca.flags[len(m.ca.flags)-1]))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, proof) })}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	if _, err := client.Accept(ctx, challenge); err != nil {
		return err
	}
	if _, err := client.WaitOrder(ctx, order.URI); err != nil {
		return err
	}
	csr, err := csrOf(s)
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(csr))
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, block.Bytes, false)
	if err == nil {
		s.cert, err = x509.ParseCertificate(chain[0])
	}
	return err
}

// sign signs a certificate as the CA would, and records it.
func (m *stockMaker) sign(s *stocked) error {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte(rand.Text()[:16])), Subject: pkix.Name{CommonName: s.cn},
		NotBefore: timeIn(s.options["from"], now.Add(-time.Hour)), NotAfter: timeIn(s.options["to"], now.Add(24*time.Hour)),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if len(s.sans) > 0 {
		template.ExtraExtensions = append(template.ExtraExtensions, extensionOf(s.sans))
	}
	var kid string
	if s.of != "" {
		kid = m.jwks[s.of].KeyID
	}
	if _, without := s.options["noext"]; s.of != "" && !without {
		value, err := asn1.Marshal(struct {
			Type         int
			Name         []byte
			CredentialID []byte
		}{int(provisioner.TypeJWK), []byte(s.of), []byte(kid)})
		if err != nil {
			return err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: provisioner.StepOIDProvisioner, Value: value})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.issuer, s.key.Public(), m.issuerKey)
	if err != nil {
		return err
	}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	serial := s.cert.SerialNumber.String()
	m.entries["x509_certs/"+serial] = string(der)
	if _, without := s.options["nodata"]; s.of != "" && !without {
		m.entries["x509_certs_data/"+serial] = fmt.Sprintf(`{"provisioner":{"id":"%s:%s","name":"%[1]s","type":"JWK"}}`, s.of, kid)
	}
	if s.revoked {
		record, err := json.Marshal(db.RevokedCertificateInfo{Serial: serial, ReasonCode: 1, RevokedAt: now.UTC(), ExpiresAt: s.cert.NotAfter.UTC()})
		m.entries["revoked_x509_certs/"+serial] = string(record)
		return err
	}
	return nil
}

// timeIn reads a time in RFC 3339, or a duration from now.
func timeIn(text string, otherwise time.Time) time.Time {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t
	}
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(d)
	}
	return otherwise
}

// extensionOf writes subject alternative names (RFC 5280, section 4.2.1.6),
// whatever is in them.
func extensionOf(sans [][2]string) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyteasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, san := range sans {
			tag, value := map[string]uint8{"email": 1, "dns": 2, "uri": 6, "ip": 7, "mapped": 7}[san[0]], []byte(san[1])
			if ip := net.ParseIP(san[1]); san[0] == "mapped" {
				value = ip.To16()
			} else if san[0] == "ip" {
				value = ip.To4()
			}
			b.AddASN1(cryptobyteasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
		}
	})
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: b.BytesOrPanic()}
}
