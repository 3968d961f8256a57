package input

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/pemutil"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzCertificates reads any file as certificates.
func FuzzCertificates(f *testing.F) {
	cert := newCertificate(f, newKey(f)).Raw
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	for _, data := range [][]byte{block, append(block, block...), append([]byte("text\n"), block...), cert, block[:len(block)/2], []byte("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"), nil} {
		f.Add(data)
	}
	file := filepath.Join(f.TempDir(), "certificates")
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounded()()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		certs, err := Certificates(t.Context(), file, "--flag")
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		for _, cert := range certs {
			if again, err := x509.ParseCertificate(cert.Raw); err != nil || !again.Equal(cert) {
				t.Errorf("a certificate is another one: %v", err)
			}
		}
	})
}

// FuzzKey reads any file as a key. A private key that is read signs, and is that
// of the public key that is read.
func FuzzKey(f *testing.F) {
	const password = "open sesame"
	key := newKey(f)
	passwordFile := filepath.Join(f.TempDir(), "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, options := range [][]pemutil.Options{nil, {pemutil.WithPKCS8(true)}, {pemutil.WithPassword([]byte(password))}} {
		block, err := pemutil.Serialize(key, options...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem.EncodeToMemory(block))
		f.Add(block.Bytes)
	}
	public, err := pemutil.Serialize(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(public))
	f.Add(newCertificate(f, key).Raw)
	f.Add([]byte("-----BEGIN RSA PUBLIC KEY-----\nc2VjcmV0\n-----END RSA PUBLIC KEY-----\n"))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"))
	f.Add([]byte(fewRounds))
	defer func(usual int64) { maxRounds = usual }(maxRounds)
	maxRounds = 1000 // which are soon over
	file := filepath.Join(f.TempDir(), "key")
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounded()()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		k := KeyFile{File: file, PasswordFile: passwordFile, Flag: "--key", PasswordFlag: "--key-password-file", CertFlag: "--cert"}
		public, publicErr := k.Public(t.Context())
		private, err := k.Read(t.Context())
		for _, err := range []error{publicErr, err} {
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("the password is in %q", err)
			}
		}
		if err != nil {
			return
		}
		_, _ = private.Sign(rand.Reader, make([]byte, 32), crypto.SHA256) // a small RSA key cannot
		same, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if publicErr == nil && (!ok || !same.Equal(public)) {
			t.Errorf("the public key is %v, and that of the private key %v", public, private.Public())
		}
	})
}

// fewRounds is a private key that was made for this test, with the password "open
// sesame", which is hashed 20 times.
const fewRounds = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHrMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAhBokWbJhUtQwIBFDAM
BggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQSdajrUndQW1ZXpJpNbCAhgSBkGjO
hKBNKEjYP92r+vuh2KoHzJ7NaufbBmqkdd1nWquwEMrVsiklC99UwuMZI/ZYxog5
SawW65V4g1FmwOy9ayW7ceXsB72UWCT9GluIhkF3avwCtwnXiwe5ouf2UvZ1yaRA
6HDHPQ0dsVOuYv5lF+9J/W92JwRXG1dN9gAuyAIHDaSLjTIiDuzdxRssFGSysw==
-----END ENCRYPTED PRIVATE KEY-----
`
