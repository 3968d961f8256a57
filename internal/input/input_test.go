package input

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// check makes sure that an error has this text and, if that is not empty, this
// hint.
func check(t *testing.T, what string, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(strings.Join(problem.Hints(err), "\n"), hint) {
		t.Errorf("%s: error %v with the hints %q; want %q with %q", what, err, problem.Hints(err), text, hint)
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCertificate(t testing.TB, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mike"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newCertificate(t, key).Raw})
	const hint = "--flag names a PEM file with a certificate in it"
	for _, tt := range []struct {
		name, in, wantErr, wantHint string
		want                        int
	}{
		{name: "one", in: string(cert), want: 1},
		{name: "two, with text", in: "text\n" + string(cert) + "text\n" + string(cert), want: 2},
		{name: "empty", in: " \n", wantErr: "empty is empty", wantHint: hint},
		{name: "text", in: "secret", wantErr: "text is not a certificate", wantHint: hint},
		{name: "malformed", in: "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n", wantErr: "malformed is malformed", wantHint: hint},
		{name: "key", in: "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n", wantErr: `key holds no certificate, but PEM of type "EC PRIVATE KEY"`, wantHint: hint},
		{name: "large", in: strings.Repeat("secret ", maxCertificates/7+1), wantErr: "has more than 16777216 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			certs, err := Certificates(t.Context(), write(t, tt.name, []byte(tt.in)), "--flag")
			if tt.wantErr != "" {
				check(t, tt.name, err, tt.wantErr, tt.wantHint)
				return
			}
			if err != nil || len(certs) != tt.want || !KeyFits(key, certs[0]) || KeyFits(newKey(t), certs[0]) {
				t.Errorf("%d certificates, %v", len(certs), err)
			}
		})
	}
	_, err := Certificates(t.Context(), "", "--flag")
	check(t, "no name", err, "--flag has no value", "")
}

func TestSecret(t *testing.T) {
	t.Setenv("STEP_THE_FILE", "hunter2")
	const itself, notShown = "it can be seen in the list of processes", "its name is not shown: it might be the thing itself"
	dir := t.TempDir()
	for _, tt := range []struct{ file, wantErr, wantHint string }{
		{"", "the name of the file with the thing is empty", ""},
		{"secret", "reading the thing: the file that --the-file names: no such file", notShown},
		{"se/cret", "reading the thing: the file that --the-file names: no such file", notShown},
		{"se\x00cret", "reading the thing: the file that --the-file names: invalid argument", notShown},
		{strings.Repeat("secret", 100), "reading the thing: the file that --the-file names: file name too long", notShown},
		{"hunter2", "reading the thing: the file that --the-file (STEP_THE_FILE) names: no such file", notShown},
		{dir, "reading the thing: read " + dir + ": is a directory", ""},
		{"eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "the value is the thing itself, not the name of a file", itself},
		{`{"kty":"EC"}`, "the value is the thing itself, not the name of a file", itself},
		{"-----BEGIN PRIVATE KEY-----", "the value is the thing itself, not the name of a file", itself},
		{write(t, "large", make([]byte, maxSecret+1)), "has more than 1048576 bytes", ""},
	} {
		_, err := Secret(t.Context(), tt.file, "--the-file", "the thing")
		check(t, tt.file, err, tt.wantErr, tt.wantHint)
		if tt.wantHint != "" && strings.Contains(err.Error()+strings.Join(problem.Hints(err), " "), tt.file) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	for in, want := range map[string]string{"secret": "secret", " se cret \r\n\t": " se cret"} {
		if got, err := Password(t.Context(), write(t, "password", []byte(in)), "--the-file"); string(got) != want || err != nil {
			t.Errorf("%q: password %q, %v", in, got, err)
		}
	}
	_, err := Password(t.Context(), write(t, "password", []byte("\n")), "--the-file")
	check(t, "white space", err, "password is empty", "")
}

// TestHidden shows that what was read is taken out of what others say.
func TestHidden(t *testing.T) {
	t.Parallel()
	block, err := pemutil.Serialize(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(block)
	const jwk = `{"use": "sig", "kty": "EC", "crv": "P-256", "d": "KiN9aRkGCkUZTAFQRkDkUxQxQ3EXAMPLEonly0notReal"}`
	for name, test := range map[string]struct {
		data []byte
		echo string
	}{
		"password":       {[]byte("open sesame\n"), "open sesame"},
		"short password": {[]byte("tres\n"), "tres"},
		"private key":    {key, strings.Split(string(key), "\n")[2]},
		"JWK":            {[]byte(jwk), jwk[60:90]},
	} {
		if _, err := Password(t.Context(), write(t, "secret", test.data), "--password-file"); err != nil {
			t.Fatal(err)
		}
		if got := problem.Clean("no: <"+test.echo+">", ""); got != "no: <(a secret)>" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, text := range []string{"-----BEGIN EC PRIVATE KEY-----", `"kty": "EC"`} {
		if got := problem.Clean(text, ""); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
