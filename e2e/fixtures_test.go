//go:build unix

package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// fixtures are files and variables that Go code makes for a script. File names
// are relative to $WORK.
type fixtures struct {
	*testscript.TestScript
	secret secrets
}

// secrets are all runs of bytes that would give a part of a secret away.
type secrets map[[secretLen]byte]bool

const secretLen = 10

func (s secrets) add(secret string) {
	for i := range len(secret) - secretLen + 1 {
		s[[secretLen]byte([]byte(secret[i:]))] = true
	}
}

// in tells whether an output holds a part of a secret.
func (s secrets) in(output string) bool {
	for i := range len(output) - secretLen + 1 {
		if s[[secretLen]byte([]byte(output[i:]))] {
			return true
		}
	}
	return false
}

func (f *fixtures) write(name string, content []byte) {
	file := f.MkAbs(name)
	f.Check(os.MkdirAll(filepath.Dir(file), 0o700))
	f.Check(os.WriteFile(file, content, 0o600))
}

func (f *fixtures) writeJSON(name string, v any) {
	content, err := json.Marshal(v)
	f.Check(err)
	f.write(name, content)
}

func (f *fixtures) writePEM(name, blockType string, der []byte) {
	f.write(name, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

// newKey makes a private key and writes it.
func (f *fixtures) newKey(file string) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.Check(err)
	der, err := x509.MarshalECPrivateKey(key)
	f.Check(err)
	f.writePEM(file, "EC PRIVATE KEY", der)
	return key
}

// sign makes a certificate for the public part of a key, writes it, and returns
// its DER.
func (f *fixtures) sign(file string, template, issuer *x509.Certificate, key, issuerKey crypto.Signer) []byte {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	f.Check(err)
	f.writePEM(file, "CERTIFICATE", der)
	return der
}

func (f *fixtures) certificate(name string) *x509.Certificate {
	cert, err := certificateIn(f.MkAbs(name))
	f.Check(err)
	return cert
}

func (f *fixtures) key(name string, options ...pemutil.Options) crypto.Signer {
	key, err := pemutil.Read(f.MkAbs(name), options...)
	f.Check(err)
	return key.(crypto.Signer)
}

// issuerKey is the key of the CA's intermediate certificate.
func (f *fixtures) issuerKey() crypto.Signer {
	key, err := current(f.TestScript).issuerKey()
	f.Check(err)
	return key
}

// config is the ca.json of a CA.
func (f *fixtures) config(ca string) (config map[string]any) {
	f.Check(readJSON(f.MkAbs(ca+"/config/ca.json"), &config))
	return config
}

func authorityOf(config map[string]any) map[string]any {
	return config["authority"].(map[string]any)
}

// provisionerOf returns a provisioner in a ca.json; the first one is admin.
func provisionerOf(config map[string]any, i int) map[string]any {
	return authorityOf(config)["provisioners"].([]any)[i].(map[string]any)
}

// adminKey is the private key of a CA's provisioner admin.
func (f *fixtures) adminKey(ca string) *jose.JSONWebKey {
	key, err := jose.ParseKey([]byte(f.ReadFile(ca + "/provisioner-key")))
	f.Check(err)
	return key
}

// tokenLife is how long the tokens of tests are valid: longer than the tests take
// on a busy machine.
const tokenLife = 30 * time.Minute

// token makes a one-time token like those of step ca token, valid for tokenLife
// from a time on. Claims are added to it; those that are empty are left out.
func (f *fixtures) token(key *jose.JSONWebKey, made time.Time, claims map[string]any) string {
	all := map[string]any{
		"iss": "admin", "jti": rand.Text(), "iat": made.Unix(), "nbf": made.Unix(), "exp": made.Add(tokenLife).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, claim any) bool { return claim == "" })
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key},
		new(jose.SignerOptions).WithType("JWT"))
	f.Check(err)
	raw, err := jose.Signed(signer).Claims(all).CompactSerialize()
	f.Check(err)
	return raw
}
