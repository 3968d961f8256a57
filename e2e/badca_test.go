//go:build unix

package e2e

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.step.sm/crypto/jose"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A badCA is what all bad CAs have in common: they are trusted.
type badCA struct {
	root    *x509.Certificate
	key     *ecdsa.PrivateKey
	server  tls.Certificate
	serials []string // those to revoke
	good    map[string]http.HandlerFunc
	signed  func() []byte // of the CRL

	mu   sync.Mutex
	peak int
}

func newBadCA(f *fixtures) *badCA {
	ca := &badCA{key: f.newKey("root.key"), serials: newSerials(100)}
	ca.signed = sync.OnceValue(ca.makeCRL)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bad"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	f.sign("root.crt", template, template, ca.key, ca.key)
	ca.root = f.certificate("root.crt")
	key := f.newKey("server.key")
	template.IsCA, template.KeyUsage = false, x509.KeyUsageDigitalSignature
	ca.server = tls.Certificate{Certificate: [][]byte{f.sign("server.crt", template, ca.root, key, ca.key)}, PrivateKey: key}
	template.SerialNumber, _ = new(big.Int).SetString(ca.serials[0], 10)
	f.sign("one.crt", template, ca.root, key, ca.key)
	f.write("list", []byte(strings.Join(ca.serials, "\n")))
	admin, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
	f.Check(err)
	f.writeJSON("admin.jwk", admin)
	f.write("one.token", []byte(f.token(admin, time.Now(), map[string]any{"sub": ca.serials[0], "aud": "https://127.0.0.1/1.0/revoke"})))
	f.Setenv("one", ca.serials[0])
	f.Setenv("sum", strings.Repeat("5a", 32))
	public, err := json.Marshal(admin.Public())
	f.Check(err)
	ca.good = map[string]http.HandlerFunc{
		"provisioners":  says(200, fmt.Sprintf(`{"provisioners":[{"type":"JWK","name":"admin","key":%s}]}`, public)),
		"intermediates": says(200, `{"crts":[]}`),
		"crl":           says(404, ""),
		"revoke":        says(200, `{"status":"ok"}`),
	}
	return ca
}

// A badServer is one bad CA.
type badServer struct {
	*badCA
	badAnswer

	mu    sync.Mutex
	sent  int     // revocations
	heard secrets // the tokens
}

// start starts the server and returns its URL.
func (s *badServer) start(t *testing.T, protocol string) string {
	s.heard = secrets{}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := net.Listener(tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{s.badCA.server}, NextProtos: []string{protocol}}))
	if s.goAway != "" {
		listener = &turningAway{Listener: listener, s: s}
	}
	server := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	if s.only == oneStream {
		server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "https://" + plain.Addr().String()
}

func (s *badServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if strings.HasSuffix(r.URL.Path, "/revoke") {
		s.hear(string(body))
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if s.answer != nil && strings.Contains(r.URL.Path, s.to) {
		s.answer(w, r)
		return
	}
	for path, answer := range s.good {
		if strings.Contains(r.URL.Path, path) {
			answer(w, r)
		}
	}
}

// hear takes a request to revoke.
func (s *badServer) hear(body string) {
	var request struct{ OTT string }
	_ = json.Unmarshal([]byte(body), &request)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	s.heard.add(request.OTT)
}

// A turningAway is a listener that takes requests by hand, and turns them away as
// if nobody had looked at them (RFC 9113, section 6.8).
type turningAway struct {
	net.Listener
	s    *badServer
	once bool // somebody was
}

func (l *turningAway) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.once && l.s.goAway == "first" {
			return conn, err
		}
		l.once = true
		go l.s.turnAway(conn)
	}
}

func (s *badServer) turnAway(conn net.Conn) {
	defer conn.Close()
	const data, headers, settings, goAway, endStream = 0, 1, 4, 7, 1
	frame := func(kind byte, payload ...byte) { // on the stream 0
		_, _ = conn.Write(append([]byte{0, 0, byte(len(payload)), kind, 0, 0, 0, 0, 0}, payload...))
	}
	if _, err := io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	frame(settings)
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(append([]byte{0}, head[:3]...)))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return
		}
		if kind := head[3]; kind == data {
			s.hear(string(payload))
		} else if kind != headers || head[4]&endStream == 0 {
			continue
		}
		frame(goAway, make([]byte, 8)...)
	}
}

// says returns a handler that gives one answer.
func says(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// refusing returns a handler that answers with another status than 200.
func refusing(code int, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		answer(w, r)
	}
}

// times returns a handler that repeats a text, as far as anybody reads.
func times(begin, text string, n int, end string) http.HandlerFunc {
	together := 1 + 32<<10/len(text)
	part := strings.Repeat(text, together)
	return func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, begin)
		for i := 0; i < n && err == nil; i += together {
			_, err = io.WriteString(w, part)
		}
		_, _ = io.WriteString(w, end)
	}
}

func endless(begin, text string) http.HandlerFunc { return times(begin, text, 1<<40, "") }

// bomb answers briefly, but not for whoever inflates it.
func bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write(packed())
}

var packed = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	packer := gzip.NewWriter(&b)
	_, _ = io.WriteString(packer, `{"status":"`)
	for range 128 {
		_, _ = packer.Write(bytes.Repeat([]byte("A"), 1<<20))
	}
	_, _ = io.WriteString(packer, `"}`)
	_ = packer.Close()
	return b.Bytes()
})

// drip returns a handler that answers a blank every tenth of a second.
func drip(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, err := io.WriteString(w, begin); err == nil; time.Sleep(100 * time.Millisecond) {
			_, err = io.WriteString(w, " ")
			w.(http.Flusher).Flush()
		}
	}
}

func half(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "15")
	_, _ = io.WriteString(w, `{"status":`)
}

func headers(w http.ResponseWriter, _ *http.Request) {
	for n := range 1000 {
		w.Header().Set(fmt.Sprintf("X-%d", n), strings.Repeat("A", 500))
	}
}

func informational(w http.ResponseWriter, r *http.Request) {
	for range 1_000_000 {
		if w.WriteHeader(http.StatusEarlyHints); r.Context().Err() != nil {
			return
		}
	}
}

// pages returns a handler that lists provisioners in pages, each of which names
// the next one.
func pages(next func(n int) string, delay time.Duration) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(delay)
		fmt.Fprintf(w, `{"provisioners":[],"nextCursor":%q}`, next(int(n.Add(1))))
	}
}

// already returns a handler that says, in the words of step-ca, that a
// certificate is revoked: the one that is asked for, or another one.
func already(serial string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"status":400,"message":"The request could not be completed: certificate with serial number '%s' is already revoked."}`, cmp.Or(serial, requested(r).Serial))
	}
}

func requested(r *http.Request) (request struct{ Serial, OTT string }) {
	_ = json.NewDecoder(r.Body).Decode(&request)
	return request
}

// echo returns a handler that repeats the token.
func echo(code int, format string, encode func(string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		fmt.Fprintf(w, format, encode(requested(r).OTT))
	}
}

func asIs(s string) string { return s }

// each writes every character in a format.
func each(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, format, r)
		}
		return b.String()
	}
}

// raw returns a handler that repeats the token where HTTP/1.1 has no place for it.
func raw(format string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, format, requested(r).OTT)
	}
}

// entries are how many the CRL has. As those of step-ca, they fill 64 MiB.
const entries = 1_300_000

// crl answers with a large CRL that lists the certificates to revoke.
func crl(w http.ResponseWriter, r *http.Request) { answerCRL(w, r, 0) }

// unsigned answers with the same CRL, and another signature.
func unsigned(w http.ResponseWriter, r *http.Request) { answerCRL(w, r, 1) }

func answerCRL(w http.ResponseWriter, r *http.Request, flip byte) {
	ca := r.Context().Value(http.ServerContextKey).(*http.Server).Handler.(*badServer).badCA
	signed := ca.signed()
	sum := sha256.Sum256(signed)
	sum[0] ^= flip
	signature, err := ecdsa.SignASN1(rand.Reader, ca.key, sum[:])
	if err != nil {
		panic(err)
	}
	var rest cryptobyte.Builder
	rest.AddBytes(ecdsaWithSHA256)
	rest.AddASN1BitString(signature)
	whole := len(signed) + len(rest.BytesOrPanic())
	for _, part := range [][]byte{binary.BigEndian.AppendUint32([]byte{0x30, 0x84}, uint32(whole)), signed, rest.BytesOrPanic()} {
		_, _ = w.Write(part)
	}
}

var ecdsaWithSHA256 = []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")

// makeCRL makes the part of the CRL that is signed, in the form of step-ca.
func (ca *badCA) makeCRL() []byte {
	now := time.Now().UTC()
	superseded := now.Format("\x17\x0d060102150405Z") + "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01\x04"
	var list cryptobyte.Builder
	for _, serial := range ca.serials {
		list.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			number, _ := new(big.Int).SetString(serial, 10)
			b.AddASN1BigInt(number)
			b.AddBytes([]byte(superseded))
		})
	}
	for n := range entries {
		serial := binary.BigEndian.AppendUint64(nil, uint64(n+1)<<32)
		list.AddBytes([]byte("\x30\x2f\x02\x10\x7f" + string(serial[1:]) + "12345678" + superseded))
	}
	var tbs cryptobyte.Builder
	tbs.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddBytes(ecdsaWithSHA256)
		b.AddBytes(ca.root.RawSubject)
		b.AddASN1UTCTime(now)
		b.AddASN1UTCTime(now.Add(time.Hour))
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(list.BytesOrPanic()) })
		b.AddBytes([]byte("\xa0\x0e\x30\x0c\x30\x0a\x06\x03\x55\x1d\x14\x04\x03\x02\x01\x05")) // number 5
	})
	return tbs.BytesOrPanic()
}
