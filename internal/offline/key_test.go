package offline

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smallstep/certificates/authority/config"
)

// TestWrongPassword reads the CA's key with wrong passwords, one of which leaves
// the padding of a whole key.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 with no other encryption such a password is found this fast
	block, err := x509.EncryptPEMBlock(rand.Reader, "PRIVATE KEY", der, []byte("right"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	padded := "wrong"
	for i := 0; ; i++ {
		//lint:ignore SA1019 see above
		if _, err := x509.DecryptPEMBlock(block, []byte(padded)); err == nil {
			break
		}
		padded = fmt.Sprint("wrong ", i)
	}
	dir := t.TempDir()
	write := func(name string, block *pem.Block) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	encrypted, plain := write("encrypted", block), write("plain", &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	broken := write("broken", &pem.Block{Type: "PRIVATE KEY", Bytes: der[1:]})
	unfit := "the password in FILE does not decrypt the CA's key " + encrypted
	for _, tt := range []struct {
		key, given, configured string // passwords
		why, fatal             string
	}{
		{key: encrypted, given: "right"},
		{key: encrypted, given: "wrong", fatal: unfit},
		{key: encrypted, given: padded, fatal: unfit},
		{key: encrypted, given: "wrong", configured: "right", fatal: unfit},
		{key: encrypted, configured: "right"},
		{key: encrypted, configured: "wrong", why: "the password in ca.json does not decrypt the CA's key"},
		{key: encrypted, configured: padded, why: "the password in ca.json does not decrypt the CA's key"},
		{key: plain},
		{key: plain, given: "wrong"},
		{key: broken, given: "wrong", why: "error parsing " + broken},
		{key: filepath.Join(dir, "none"), why: "error reading \"" + filepath.Join(dir, "none") + "\": "},
	} {
		ca := &CA{config: Config{File: "ca.json", PasswordFile: "FILE"}, settings: &Settings{CA: &config.Config{IntermediateKey: tt.key, Password: tt.configured}}}
		if tt.given != "" {
			ca.password = []byte(tt.given)
		}
		signer, why, fatal := ca.readKey(t.Context())
		if (signer != nil) != (tt.why+tt.fatal == "") || !begins(why, tt.why) || !begins(fatal, tt.fatal) {
			t.Errorf("%+v: %v, why %v, fatal %v", tt, signer, why, fatal)
		}
	}
}

// begins tells whether an error begins like this, or is nil for nothing.
func begins(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.HasPrefix(err.Error(), text)
}
