package input

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"testing"

	"go.step.sm/crypto/pemutil"
)

// keyFiles are the files of one key, which is encrypted with the password
// "right".
type keyFiles struct {
	plain, broken, encrypted string
	padded                   string // a wrong password for encrypted, with the padding of a whole key
}

func newKeyFiles(t *testing.T) (f keyFiles) {
	t.Helper()
	key := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 with no other encryption such a password is found this fast
	block, err := x509.EncryptPEMBlock(rand.Reader, "PRIVATE KEY", der, []byte("right"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	f.plain = write(t, "plain", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	f.broken = write(t, "broken", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[1:]}))
	f.encrypted = write(t, "encrypted", pem.EncodeToMemory(block))
	for i := 0; ; i++ {
		f.padded = fmt.Sprint("wrong ", i)
		//lint:ignore SA1019 see above
		if _, err := x509.DecryptPEMBlock(block, []byte(f.padded)); err == nil {
			return f
		}
	}
}

// encryptedKey writes a key with the password "right" in another format.
func encryptedKey(t *testing.T, format pemutil.Options) string {
	t.Helper()
	block, err := pemutil.Serialize(newKey(t), format, pemutil.WithPassword([]byte("right")))
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "encrypted", pem.EncodeToMemory(block))
}

// encryptedAs returns what says that it is a private key in PKCS #8, encrypted with
// AES (RFC 8018, appendix A.2 and A.4) after so many rounds.
func encryptedAs(t *testing.T, rounds int, iv, encrypted string) []byte {
	t.Helper()
	type algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters any
	}
	der, err := asn1.Marshal(struct {
		Algorithm algorithm
		Encrypted []byte
	}{algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, struct{ Derivation, Encryption algorithm }{
		algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, struct {
			Salt   []byte
			Rounds int
		}{[]byte("salt"), rounds}},
		algorithm{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, []byte(iv)},
	}}, []byte(encrypted)})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

// TestKeyFile reads keys with passwords in files.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	f := newKeyFiles(t)
	pkcs8 := encryptedKey(t, pemutil.WithPKCS8(true))
	const sixteen = "0123456789abcdef"
	whole := write(t, "whole", encryptedAs(t, 1, sixteen, sixteen))
	short := write(t, "short", encryptedAs(t, 1, sixteen, sixteen[1:]))
	shortIV := write(t, "short IV", encryptedAs(t, 1, sixteen[1:], sixteen))
	slow := write(t, "slow", encryptedAs(t, 10_000_001, sixteen, sixteen))
	text := write(t, "text", []byte("secret"))
	cert := write(t, "cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newCertificate(t, newKey(t)).Raw}))
	const hint = "--key names a PEM file with the private key of the certificate in --cert"
	for _, tt := range []struct{ file, password, wantErr, wantHint string }{
		{file: f.plain},
		{file: f.plain, password: "needless"},
		{file: f.encrypted, password: "right"},
		{file: f.encrypted, password: "right\n"},
		{file: pkcs8, password: "right"},
		{file: f.encrypted, password: "wrong", wantErr: "password does not decrypt the key in " + f.encrypted},
		{file: f.encrypted, password: f.padded, wantErr: "password does not decrypt the key in " + f.encrypted},
		{file: pkcs8, password: "wrong", wantErr: "password does not decrypt the key in " + pkcs8},
		{file: f.encrypted, password: " ", wantErr: "the password file "},
		{file: f.broken, wantErr: "broken is not a private key that can be read: error parsing", wantHint: hint},
		{file: f.broken, password: "wrong", wantErr: "broken is not a private key that can be read: error parsing", wantHint: hint},
		{file: whole, password: "wrong", wantErr: "the password in "},
		{file: short, password: "right", wantErr: "short is not a private key that can be read: it is malformed", wantHint: hint},
		{file: shortIV, password: "right", wantErr: "short IV is not a private key that can be read: it is malformed", wantHint: hint},
		{file: slow, password: "right", wantErr: "slow takes more than 10000000 rounds to decrypt"},
		{file: text, wantErr: "text is not a private key that can be read", wantHint: hint},
		{file: cert, wantErr: "cert holds no private key that can sign", wantHint: hint},
		{file: "", wantErr: "the name of the file with the private key is empty"},
		{file: "none", wantErr: "reading the private key: the file that --key names: no such file", wantHint: "not shown"},
	} {
		k := KeyFile{File: tt.file, Flag: "--key", PasswordFlag: "--key-password-file", CertFlag: "--cert"}
		if tt.password != "" {
			k.PasswordFile = write(t, "password", []byte(tt.password))
		}
		key, err := k.Read(t.Context())
		switch {
		case tt.wantErr != "":
			check(t, fmt.Sprintf("%s with the password %q", tt.file, tt.password), err, tt.wantErr, tt.wantHint)
		case err != nil || key == nil:
			t.Errorf("%s with the password %q: %v", tt.file, tt.password, err)
		}
	}
}
