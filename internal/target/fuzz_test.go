package target

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// bounded ends the program if an input takes longer than any may. The result
// calls it off.
func bounded() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzSerial reads a serial number in each place that takes one: none reads
// another number than another one does, or than Go and step-ca see in it, and a
// number is read again however it is written.
func FuzzSerial(f *testing.F) {
	for _, word := range []string{
		"308893286343609293989051180431574390766", "0x1A", "0Xff", "e8:62:cb:c7", " 4660 ", "00", "0", "-1", "+1", "017", "0b11", "0o17", "1_000", "1e9", "12ab", "e8:6", "\u0664\u0662",
		"1461501637330902918203684832716283019655932542975", "1461501637330902918203684832716283019655932542976", strings.Repeat("9", 129), "4660 # mine", "eyJhbGciOiJFUzI1NiJ9",
	} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		defer bounded()()
		read := map[string]Serial{}
		if s, err := ParseSerial(word); err == nil {
			read["argument"] = s
			for _, text := range writings(s) {
				if again, err := ParseSerial(text); again != s || err != nil {
					t.Errorf("%q is %s, and %q is %s, %v", word, s, text, again, err)
				}
			}
			if n, ok := new(big.Int).SetString(strings.TrimSpace(word), 0); ok && n.Cmp(s.Big()) != 0 {
				t.Errorf("%q is %s, but math/big reads %s", word, s, n)
			}
		}
		quoted, _ := json.Marshal(word)
		for place, file := range map[string]string{"list": word, "object": `{"serial":` + string(quoted) + `}`} {
			if place == "object" && !utf8.ValidString(word) {
				continue // which JSON cannot have
			}
			if l, _, err := readFile([]byte(file), Sources{AllowSmall: true}); err == nil && len(l.All) == 1 {
				read[place] = l.All[0].Serial
			}
		}
		for place, s := range read {
			if s == (Serial{}) || read["argument"] != s && !strings.ContainsAny(word, "#\n\ufeff") {
				t.Errorf("%q is %s in a(n) %s, and in others %v", word, s, place, read)
			}
		}
	})
}

// writings are all forms in which a serial number may be written.
func writings(s Serial) []string {
	digits := s.Big().Text(16)
	even := strings.Repeat("0", 2+len(digits)%2) + digits // at least two bytes
	var colons []string
	for pair := range slices.Chunk([]byte(even), 2) {
		colons = append(colons, string(pair))
	}
	return []string{s.String(), "0x" + digits, "0X00" + strings.ToUpper(digits), strings.Join(colons, ":")}
}

// readFile reads a file of --from.
func readFile(data []byte, s Sources) (*List, Notes, error) {
	l := &List{}
	r := newReader(l, s, "file")
	err := r.read(bytes.NewReader(data))
	return l, r.notes, err
}

// FuzzFrom reads a file of --from, of any of its three kinds. What it names it
// names also with the line breaks and in the encoding of Windows, and each number
// that is read stands there.
func FuzzFrom(f *testing.F) {
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newRecord(f, newECKey(f), pkix.Name{CommonName: "mike"}).Raw})
	for _, file := range []string{
		"# mine\n4660\n0x1234 # again\n\n12:34\n", "\ufeff4660\n", "\xff\xfe4\x006\x006\x000\x00\n\x00", "4660\n{}\n", "12ab\n",
		string(cert), "Serial Number: 4660\n" + string(cert) + "    12:34\n", string(cert) + "4660\n", string(cert[:90]), string(cert) + string(cert),
		"-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n", strings.TrimSpace(string(cert)) + string(cert),
		`{"serial":"4660","status":"planned","reasonCode":4,"ca":"https://ca"}` + "\n" + `{"serial":"0x1235","status":"revoked"}`,
		`{"journal":1,"ca":"https://ca"}` + "\n" + `{"serial":"4660","status":"revoked"}` + "\n" + `{"serial":"46`, `{"journal":1,"serial":"1"}`, `{"serial":1}`,
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer bounded()()
		claims := 0
		l, notes, err := readFile(data, Sources{AllowSmall: true, Agree: func(Claim) error { claims++; return nil }})
		if err != nil {
			return
		}
		if notes.Read != len(l.All)+notes.Repeated || claims > bytes.Count(data, []byte("\n"))+1 {
			t.Errorf("%d targets, %d claims, %+v", len(l.All), claims, notes)
		}
		var list []byte
		for _, target := range l.All {
			if target.Serial == (Serial{}) {
				t.Error("a serial number is zero")
			}
			list = append(append(list, target.Serial.String()...), '\n')
		}
		same := map[string][]byte{"list": list}
		if !bytes.ContainsAny(data, "\r\x00") && utf8.Valid(data) && bytes.IndexByte(data, 0xef) < 0 {
			same["line breaks"] = bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
			same["UTF-16"] = utf16LE(string(data))
		}
		for name, data := range same {
			again, _, err := readFile(data, Sources{AllowSmall: true})
			if err != nil || again.Digest() != l.Digest() {
				t.Errorf("%s: %v, %d targets and not %d", name, err, len(again.All), len(l.All))
			}
		}
	})
}

// utf16LE writes a text as Windows PowerShell does.
func utf16LE(text string) []byte {
	file := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(text)) {
		file = append(file, byte(unit), byte(unit>>8))
	}
	return file
}

// FuzzQuery gives the parser of --where any term, and looks for it in any DER. A
// query means the same however it is written: its own terms, parsed again, make
// the same query.
func FuzzQuery(f *testing.F) {
	cert := newRecord(f, newECKey(f), pkix.Name{CommonName: "mike"}, issuedBy(f, "ci"),
		san(f, generalName(dnsName, "Mike.Example."), generalName(emailName, "Mike@Example.com"), generalName(uriName, "HTTPS://Mike.example/A"), generalName(ipName, "\x0a\x00\x00\x01")))
	for _, term := range []string{
		"san=mike.example", "san=MÜNCHEN.example", "san=Mike@EXAMPLE.com", "san=https://mike.EXAMPLE/A", "san=10.0.0.1", "san=::ffff:10.0.0.1", "san=fe80::1%eth0",
		"subject=mike", "provisioner=ci", "issued-after=36h", "issued-before=2026-11-20", "issued-before=2026-11-20T08:00:00+01:00", "sna=x", "key=sha256:00", "san=\xff", "san=urn:x:%zz", "san=10.0..", "san=mike@x..", "san=x .",
	} {
		f.Add(term, cert.Raw)
	}
	f.Add("subject=mike", []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, term string, der []byte) {
		defer bounded()()
		if name, value, _ := strings.Cut(term, "="); name == "key" && !strings.HasPrefix(value, keyDigest) {
			return // any file of this machine
		}
		q, err := ParseQuery(t.Context(), []string{term}, "", noon)
		if err != nil {
			return
		}
		again, err := ParseQuery(t.Context(), q.Terms(), "", noon)
		if err != nil || !slices.Equal(again.Terms(), q.Terms()) {
			t.Fatalf("%q became %q and then %q: %v", term, q.Terms(), again.Terms(), err)
		}
		none := func() (string, error) { return "", nil }
		for _, der := range [][]byte{der, cert.Raw} {
			first, _, err := q.Look("4711", der, none)
			second, _, errAgain := again.Look("4711", der, none)
			if (first == nil) != (second == nil) || (err == nil) != (errAgain == nil) {
				t.Errorf("%q and %q do not find the same", q.Terms(), again.Terms())
			}
		}
		if finds(t, q, cert, "") != again.Match(cert, "ci") {
			t.Errorf("%q: the quick look is wrong", q.Terms())
		}
	})
}

// FuzzRecord takes any DER apart: what the quick look takes for a certificate it
// must have read as crypto/x509 does, which also takes some that are no DER.
func FuzzRecord(f *testing.F) {
	cert := newRecord(f, newECKey(f), pkix.Name{CommonName: "mike"}, issuedBy(f, "ci"))
	f.Add(cert.Raw)
	f.Add(cert.Raw[:len(cert.Raw)-1])
	f.Fuzz(func(t *testing.T, der []byte) {
		defer bounded()()
		r, err := readRecord(der)
		parsed, parseErr := x509.ParseCertificate(der)
		if err != nil || parseErr != nil {
			return
		}
		if !r.notBefore.Equal(parsed.NotBefore) || !r.hasSerial(parsed.SerialNumber.String()) || string(r.key) != string(parsed.RawSubjectPublicKeyInfo) {
			t.Error("the quick look has read something else")
		}
	})
}
