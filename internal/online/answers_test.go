package online

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// questions are all that a CA is asked, by the end of the path.
var questions = map[string]func(*testing.T, Config) error{
	"provisioners": func(t *testing.T, cfg Config) error {
		list, err := connect(t, cfg).Provisioners(t.Context())
		for _, p := range list {
			_ = p.GetName()
		}
		return err
	},
	"intermediates": func(t *testing.T, cfg Config) error {
		issuers, err := connect(t, cfg).Issuers(t.Context())
		for _, issuer := range issuers {
			_ = issuer.RawSubject
		}
		return err
	},
	"crl": func(t *testing.T, cfg Config) error {
		_, err := connect(t, cfg).Evidence(t.Context())
		return err
	},
	"root": func(t *testing.T, cfg Config) error {
		cfg.Roots, cfg.Fingerprint = nil, strings.Repeat("5a", 32)
		_, err := Connect(t.Context(), cfg, nil)
		return err
	},
	"revoke": func(t *testing.T, cfg Config) error {
		return connect(t, cfg).Revoke(t.Context(), revocation.Request{Serial: target.Serial{19: 1}, Token: "secret-token"}).Err
	},
}

// answering returns a CA that answers one question like this, and others as if
// it had nothing.
func answering(question string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, question) {
			answer(w, r)
		} else {
			fmt.Fprint(w, `{"crts":[]}`)
		}
	}
}

// TestNonsense gives all questions answers with null in every place, and what is
// no JSON: none of it is an answer, but for what means an empty list.
func TestNonsense(t *testing.T) {
	t.Parallel()
	const provisioners, intermediates, lists = "provisioners", "intermediates", "provisioners intermediates"
	bodies := []struct{ body, emptyAs string }{
		{"", ""}, {"<html>", ""}, {"true", ""}, {"0", ""}, {`""`, ""}, {"[]", ""}, {"[null]", ""}, {"{", ""}, {"{}{}", ""}, {"\x00", ""}, {strings.Repeat("[", 20_000), ""},
		{"null", lists}, {"{}", lists}, {`{"status":null}`, lists}, {`{"status":"OK"}`, lists}, {`{"status":["ok"]}`, lists},
		{`{"ca":null}`, lists}, {`{"ca":""}`, lists}, {`{"ca":"null"}`, lists}, {`{"ca":"x"}`, lists}, {`{"ca":[]}`, lists}, {`{"ca":{}}`, lists},
		{`{"crts":null}`, lists}, {`{"crts":[null]}`, provisioners}, {`{"crts":[""]}`, provisioners}, {`{"crts":["null"]}`, provisioners},
		{`{"crts":"x"}`, provisioners}, {`{"crts":[{}]}`, provisioners}, {`{"crts":{}}`, provisioners},
		{`{"provisioners":null}`, lists}, {`{"provisioners":[null]}`, lists}, {`{"provisioners":[{"type":null}]}`, lists},
		{`{"provisioners":{}}`, intermediates}, {`{"provisioners":[[]]}`, intermediates}, {`{"provisioners":"x"}`, intermediates},
		{`{"provisioners":[],"nextCursor":null}`, lists}, {`{"provisioners":[],"nextCursor":1}`, intermediates},
		{`{"provisioners":[{"type":"JWK","key":{}}]}`, intermediates}, {`{"provisioners":[{"type":"X5C","roots":"?"}]}`, intermediates},
	}
	for question, ask := range questions {
		t.Run(question, func(t *testing.T) {
			t.Parallel()
			var body atomic.Value
			cfg := configOf(t, serve(t, answering(question, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body.Load()) })))
			for _, tt := range bodies {
				body.Store(tt.body)
				if err := ask(t, cfg); (err == nil) != strings.Contains(tt.emptyAs, question) {
					t.Errorf("%.60s: error %v", tt.body, err)
				}
			}
		})
	}
}

// endless writes a text again and again, as far as anybody reads.
func endless(begin, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		part := []byte(strings.Repeat(text, 1+4096/len(text)))
		_, err := io.WriteString(w, begin)
		for err == nil {
			_, err = w.Write(part)
		}
	}
}

// pages returns a handler that lists provisioners in pages, each of which names
// the next.
func pages(provisioner string, next func(n int) string) http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, _ *http.Request) {
		n++
		fmt.Fprintf(w, `{"provisioners":[%s],"nextCursor":%q}`, provisioner, next(n))
	}
}

// TestBounds shows how much of an answer is read, and that nothing is asked for
// again because there was too much of it.
func TestBounds(t *testing.T) {
	t.Parallel()
	next := func(n int) string { return fmt.Sprint(n) }
	large := `{"type":"ACME","x":"` + strings.Repeat("x", 1<<19) + `"}`
	for _, tt := range []struct {
		name, question string
		answer         http.HandlerFunc
		text           string
	}{
		{"confirmation", "revoke", endless(`{"status":"`, "o"), "the CA's answer is not a confirmation (it has more than 64 KiB)"},
		{"root", "root", endless(`{"ca":"`, "o"), "its answer cannot be used: it has more than 1 MiB"},
		{"intermediates", "intermediates", endless(`{"crts":["`, "o"), "its answer cannot be used: it has more than 1 MiB"},
		{"provisioners", "provisioners", endless(`{"provisioners":["`, "o"), "its answer cannot be used: it has more than 16 MiB"},
		{"CRL", "crl", endless("\x30\x84\x04\x00\x00\x00", "\x00"), "its answer cannot be used: it has more than 64 MiB"},
		{"CRL without an end", "crl", endless("\x30\x05", "\x00"), "reading the CRL: it is not a CRL"},
		{"no CRL without an end", "crl", endless("<html>", "o"), "reading the CRL: it is not a CRL"},

		{"one cursor", "provisioners", pages("", func(int) string { return "x" }), "its pages have no end"},
		{"two cursors", "provisioners", pages("", func(n int) string { return fmt.Sprint(n % 2) }), "its pages have no end"},
		{"empty pages", "provisioners", pages("", next), "its pages have no end"},
		{"a large cursor", "provisioners", pages("", func(int) string { return strings.Repeat("x", 2000) }), "its pages have no end"},
		{"large pages", "provisioners", pages(large, next), "it has more than 16 MiB"},
		{"pages of many", "provisioners", pages(strings.TrimSuffix(strings.Repeat(`{"type":"ACME"},`, 5000), ","), next), "it lists too much"},
		{"many", "provisioners", answerWith(200, `{"provisioners":[`+strings.Repeat("{},", 10_000)+`{}]}`), "it lists too much"},
		{"a large one", "provisioners", answerWith(200, `{"provisioners":[{"type":"`+strings.Repeat("x", 1<<20)+`"}]}`), "it lists too much"},
		{"a long name", "provisioners", answerWith(200, `{"provisioners":[{"type":"ACME","name":"`+strings.Repeat("x", 1001)+`"}]}`), "a name in it has more than 1000 bytes"},
		{"a long key ID", "provisioners", answerWith(200, `{"provisioners":[{"type":"JWK","key":{"kty":"oct","k":"AA","kid":"`+strings.Repeat("x", 1001)+`"}}]}`), "a name in it has more than 1000 bytes"},
		{"many intermediates", "intermediates", answerWith(200, `{"crts":[`+strings.Repeat(`"",`, 20)+`""]}`), "it has more than 20 certificates"},
		{"an empty one", "intermediates", answerWith(200, `{"crts":[""]}`), "one of its certificates is empty"},
		{"a large key", "intermediates", answerWith(200, fmt.Sprintf(`{"crts":[%q]}`, largeKey(t))), "one of its keys has more than 8192 bits"},

		{"headers", "crl", func(w http.ResponseWriter, _ *http.Request) {
			for n := range 100 {
				w.Header().Set(fmt.Sprintf("X-%d", n), strings.Repeat("x", 1000))
			}
		}, "cannot be reached: connection error"},
		{"informational", "crl", func(w http.ResponseWriter, _ *http.Request) {
			for range 10_000 {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}, "header"},
		{"compressed", "crl", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Error("compression was asked for")
			}
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "\x1f\x8b\x08")
		}, "reading the CRL: it is not a CRL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			cfg := configOf(t, serve(t, answering(tt.question, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); tt.answer(w, r) })))
			err := questions[tt.question](t, cfg)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if n := asked.Load(); n > maxPages+1 || tt.question != "provisioners" && n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// largeKey returns a certificate with a key of 16,384 bits that nobody knows.
func largeKey(t *testing.T) string {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
	key := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 16383, 1), E: 65537}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
