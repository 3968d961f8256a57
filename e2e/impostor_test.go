//go:build unix

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// impostorScript is a session with two servers that pretend to be the CA:
// $impostor has another root certificate and hands it out, and $relay hands out
// the CA's own, as anybody can.
const impostorScript = `
ca init
exec step ca provisioner add hosts --type X5C --x5c-roots ca/certs/root_ca.crt
ca start
issue mike anna
exec step ca token --provisioner admin --provisioner-password-file ca/provisioner-password --output-file mike.token --revoke $mike
exec step crypto change-pass mike.key --out mike-encrypted.key --new-password-file ca/password
chmod 0600 mike-encrypted.key
snapshot
env STEPPATH=$WORK/nowhere
impostors
exec sh all-ways $impostor $ca_fingerprint 'answered with another one'
asked-for-root impostor 5
exec sh all-ways $relay $ca_fingerprint 'signed by unknown authority'
asked-for-root relay 5
exec sh all-ways $impostor $relay_fingerprint 'answered with another one|is not that of the root certificate that is trusted'
asked-for-root impostor 4
exec sh all-ways $ca_url $relay_fingerprint 'has no root certificate with the fingerprint|is not that of the root certificate that is trusted'
unchanged
env STEPPATH=$WORK/ca
renews mike

-- all-ways --
# Each way to authorize, with a CA that must be refused: URL FINGERPRINT ERROR.
refused() {
	if STEPDEBUG=1 step-revoke-plugin --ca-url "$@" 2>stderr; then
		echo "not refused: $*"
		exit 1
	fi
	if ! grep -E "^error: .*($error)" stderr; then
		cat stderr
		exit 1
	fi
}
error=$3
refused "$1" --fingerprint "$2" --provisioner admin --provisioner-password-file ca/provisioner-password $mike
refused "$1" --fingerprint "$2" --token-file mike.token $mike
refused "$1" --fingerprint "$2" --cert mike.crt --key mike-encrypted.key --key-password-file ca/password
refused "$1" --fingerprint "$2" --x5c-cert anna.crt --x5c-key anna.key $mike
refused "$1" --fingerprint "$2" --cert mike.crt --provisioner admin --provisioner-password-file ca/provisioner-password
`

// An impostor is a TLS server that pretends to be a CA and records all that it
// receives.
type impostor struct {
	mu    sync.Mutex
	heard bytes.Buffer // all connections, decrypted
	shown int          // client certificates
}

// serve starts the server, which hands out one root certificate for each
// fingerprint that it is asked for.
func (s *impostor) serve(ts *testscript.TestScript, cert tls.Certificate, root []byte) (url string) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.shown += len(state.PeerCertificates)
			return nil
		},
	})
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"ca": string(root)})
	})}
	go server.Serve(listenerInto{listener, s})
	ts.Defer(func() { server.Close() })
	return "https://" + listener.Addr().String()
}

// listenerInto is a listener whose connections record what they read.
type listenerInto struct {
	net.Listener
	*impostor
}

type connInto struct {
	net.Conn
	*impostor
}

func (l listenerInto) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return connInto{conn, l.impostor}, err
}

func (c connInto) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard.Write(b[:n])
	return n, err
}

// TestImpostor shows that nothing but a request for the root certificate is
// sent to a CA that has another root than the one with the fingerprint.
func TestImpostor(t *testing.T) {
	t.Parallel()
	servers := map[string]*impostor{"impostor": {}, "relay": {}}
	impostors := func(ts *testscript.TestScript, _ []string) {
		cert, root := selfMade(ts)
		ts.Setenv("impostor", servers["impostor"].serve(ts, cert, root))
		ts.Setenv("relay", servers["relay"].serve(ts, cert, []byte(ts.ReadFile("ca/certs/root_ca.crt"))))
		ts.Setenv("relay_fingerprint", strings.Repeat("5a", 32))
	}
	askedForRoot := func(ts *testscript.TestScript, args []string) {
		s := servers[args[0]]
		s.mu.Lock()
		defer s.mu.Unlock()
		heard := s.heard.String()
		for line := range strings.Lines(heard) {
			for _, known := range []string{"GET /1.0/root/", "Cache-Control: no-cache", "Host: 127.0.0.1:", "User-Agent: ", "X-Request-Id: ", "Accept-Encoding: gzip", "\r\n"} {
				if strings.HasPrefix(line, known) {
					line = ""
					break
				}
			}
			if line != "" {
				ts.Fatalf("%s was told %q", args[0], line)
			}
		}
		if n := fmt.Sprint(strings.Count(heard, "GET ")); n != args[1] || s.shown > 0 {
			ts.Fatalf("%s was asked %s times and shown %d client certificates:\n%s", args[0], n, s.shown, heard)
		}
		s.heard.Reset()
	}
	runSession(t, impostorScript, map[string]func(*testscript.TestScript, []string){
		"impostors": impostors, "asked-for-root": askedForRoot,
	})
}

// selfMade is a certificate for 127.0.0.1 that is its own root.
func selfMade(ts *testscript.TestScript) (cert tls.Certificate, root []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "impostor"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
