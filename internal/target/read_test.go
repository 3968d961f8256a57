package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

const a, b = "308893286343609293989051180431574390766", "182670349926471833261784960213309412735"

// write writes a file with the name f.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func serials(l *List) string {
	var all []string
	for _, target := range l.All {
		all = append(all, target.Serial.String())
	}
	return strings.Join(all, " ")
}

// TestReadFrom shows what is read from a file of --from, and which files are
// refused.
func TestReadFrom(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("1", MaxLine)
	tests := []struct{ name, in, want, wantErr, wantHint string }{
		{name: "list", in: a + "\n" + b + "\n", want: a + " " + b},
		{name: "no last line break", in: a + "\n" + b, want: a + " " + b},
		{name: "CRLF, comments and blanks", in: "\r\n# x\r\n " + a + " # y\r\n\t\r\n" + b + "#z\r\n", want: a + " " + b},
		{name: "byte-order mark", in: "\ufeff" + a, want: a},
		{name: "joined files", in: "\ufeff" + a + "\n\ufeff" + b + "\n", want: a + " " + b},
		{name: "forms", in: "0xe862aed7b5188396dd149b96a6e557ee\ne8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee", want: a},
		{name: "empty", in: "", wantErr: "f names no certificate at all", wantHint: "failed?"},
		{name: "only comments", in: "# a\n\n  \n", wantErr: "f names no certificate at all"},
		{name: "mistyped", in: a + "\n010\n", wantErr: `f, line 2: "010" is not a serial number`, wantHint: "write 0x010"},
		{name: "mistyped, with a prefix", in: "0x" + strings.Repeat("5a", 21), wantErr: "f, line 1: the serial number 0x5a5a", wantHint: serialBounds},
		{name: "hexadecimal", in: a + "\n5a3a\n", wantErr: "f, line 2 is not a serial number", wantHint: "write 0x in front"},
		{name: "a hexadecimal password", in: strings.Repeat("5a", 16), wantErr: "f, line 1 is not a serial number", wantHint: "write 0x in front"},
		{name: "small, with colons", in: "12:34:56", wantErr: "f, line 1: the serial number is too small", wantHint: "ssh"},
		{name: "a sign", in: "+" + a, wantErr: "f, line 1 is not a serial number", wantHint: noSign},
		{name: "underscores", in: "1_0", wantErr: "f, line 1 is not a serial number", wantHint: noUnderscores},
		{name: "too small", in: a + "\n\n255", wantErr: "f, line 3: the serial number 255 is too small", wantHint: "ssh"},
		{name: "not shown", in: "hunter2-hunter2", wantErr: "f, line 1 is not a serial number", wantHint: "one a line"},
		{name: "not shown either", in: strings.Repeat("ab", 32), wantErr: "f, line 1 is not a serial number"},
		{name: "token", in: a + "\neyJhbGciOiJFUzI1NiJ9.e30.c2ln", wantErr: "f, line 2 is not a serial number"},
		{name: "two on a line", in: a + " " + b, wantErr: "f, line 1 is not a serial number"},
		{name: "commas", in: a + "," + b, wantErr: "f, line 1 is not a serial number"},
		{name: "long line", in: a + "\n" + long, wantErr: "f, line 2 has more than 1048576 bytes"},
		{name: "key", in: "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n", wantErr: `f holds no certificate, but PEM of type "EC PRIVATE KEY"`},
		{name: "request", in: "-----BEGIN CERTIFICATE REQUEST-----\nc2VjcmV0\n-----END CERTIFICATE REQUEST-----\n", wantErr: `f, line 1: PEM of type "CERTIFICATE REQUEST", and not a certificate`},
		{name: "malformed", in: "text\n-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n", wantErr: "f, line 2: the certificate that begins here is malformed"},
		{name: "no base64", in: "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", wantErr: "f, line 1: the certificate that begins here is malformed"},
		{name: "no end", in: "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n", wantErr: "f, line 1: the PEM block that begins here has no end"},
		{name: "two begins", in: "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1: the PEM block that begins here has no end"},
		{name: "list, then PEM", in: a + "\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2: serial numbers and certificates in one file"},
		{name: "text, number, then PEM", in: "text\n" + a + "\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2: serial numbers and certificates in one file"},
		{name: "numbers in another form, then PEM", in: "5a3a\ntext\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1: serial numbers and certificates in one file"},
		{name: "number with a note in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a + " # note\n", wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + `{"serial":"` + a + `"}`, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "no line break before PEM", in: "name: -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", wantErr: "f, line 1: a certificate that does not begin or end on a line of its own", wantHint: "line break"},
		{name: "list, text, then PEM", in: a + "\ntext\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1: serial numbers and certificates in one file"},
		{name: "PEM, then list", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON", in: `{"serial":"` + a + `","status":"failed"}` + "\n# reviewed\n\n" + `{"serial":"` + b + `","error":"#"}`, want: a + " " + b},
		{name: "journal", in: `{"journal":1,"ca":"https://ca"}` + "\n" + `{"serial":"` + a + `","ca":"https://ca","status":"revoked","reasonCode":4}`, want: a},
		{name: "two journals", in: `{"journal":1}` + "\n" + `{"serial":"` + a + `"}` + "\n" + `{"journal":1}`, wantErr: "f, line 3: the header of a journal is its first line"},
		{name: "header with a serial number", in: `{"journal":1,"serial":"` + a + `"}`, wantErr: "f, line 1: the header of a journal is its first line, and names no certificate"},
		{name: "hidden in a header", in: `{"serial":"` + a + `"}` + "\n" + `{"journal":1,"serial":"` + b + `"}`, wantErr: "f, line 2: the header of a journal"},
		{name: "header after comments", in: "# reviewed\n\n" + `{"journal":1}` + "\n" + `{"serial":"` + a + `"}`, want: a},
		{name: "another key's case", in: `{"serial":"` + a + `","SERIAL":"` + b + `","Journal":1,"later":[{}]}`, want: a},
		{name: "a key twice", in: `{"serial":"` + a + `","serial":"` + a + `"}`, wantErr: "f, line 1 is not one of our JSON objects"},
		{name: "no serial", in: `{"status":"failed"}`, wantErr: "f, line 1 has no serial number"},
		{name: "JSON array", in: `["` + a + `"]`, wantErr: "f, line 1 is not a serial number"},
		{name: "broken JSON", in: `{"serial":"` + a + `"}` + "\n" + `{"serial":"secr`, wantErr: "f, line 2 is not one of our JSON objects"},
		{name: "list in JSON", in: `{"serial":"` + a + `"}` + "\n" + b, wantErr: "f, line 2 is not one of our JSON objects"},
		{name: "JSON in list", in: b + "\n" + `{"serial":"` + a + `"}`, wantErr: "f, line 2 is not a serial number"},
		{name: "bad number", in: `{"serial":"00` + a + `"}`, wantErr: "f, line 1: \"00" + a + `" is not a serial number`},
		{name: "DER", in: "0\x82\x01\x0a", wantErr: "f, line 1 is not a serial number"},
		{name: "other text", in: strings.Repeat("some text\n", 1<<18), wantErr: "f, line 1 is not a serial number"},
		{name: "zero", in: "0x0", wantErr: "f, line 1: the serial number 0x0 is zero", wantHint: "positive"},
		{name: "block without an end", in: "-----BEGIN X-----\n" + strings.Repeat("AAAA\n", maxBlock/4), wantErr: "f, line 1: the PEM block that begins here has no end"},
		{name: "certificate in JSON", in: `{"serial":"` + a + `"}` + "\n-----BEGIN CERTIFICATE-----", wantErr: "f, line 2: a certificate that does not begin"},
		{name: "key in JSON", in: `{"serial":"` + a + `"}` + "\n-----BEGIN PRIVATE KEY-----", wantErr: "f, line 2 is not one of our JSON objects"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, notes, err := Read(t.Context(), Sources{From: []string{write(t, tt.in)}})
			switch {
			case tt.wantErr != "":
				check(t, tt.name, err, tt.wantErr, tt.wantHint)
			case err != nil:
				t.Error(err)
			case serials(l) != tt.want || notes[0].Read-notes[0].Repeated != len(l.All) || filepath.Base(notes[0].Name) != "f":
				t.Errorf("%s, %+v; want %s", serials(l), notes, tt.want)
			}
		})
	}
}

// TestProse shows which lines may stand among certificates.
func TestProse(t *testing.T) {
	t.Parallel()
	const dump = "        Serial Number:\n            e8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee\n" +
		"        Subject Public Key Info:\n                pub:\n                    04:9b:75:a0:17:\n                    30:45\n" +
		"            X509v3 Subject Key Identifier: \n                3A:5B:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22\n" +
		"    Signature Algorithm: ecdsa-with-SHA256\n         30:45:02:20:1c:\n         9c:2e\n"
	hexadecimal := "e862aed7b5188396dd149b96a6e557ee"
	colons := "e8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee"
	cert := pemOf(newCA(t, "ours").issue(t, 1<<32))
	for _, tt := range []struct {
		text  string
		wants int // the line that names a target; 0: none
	}{
		{a, 1}, {" " + a + " # old", 1}, {"text\n\t" + a, 2}, {"00" + a, 1}, {hexadecimal, 1}, {strings.ToUpper(hexadecimal), 1}, {"0x" + hexadecimal, 1},
		{"0x", 1}, {"+" + a, 1}, {"-" + a, 1}, {"255", 1}, {"0", 1}, {"10470," + a, 1}, {a + " " + b, 1}, {a + ", " + hexadecimal + ";", 1},
		{`"` + a + `"`, 1}, {"'" + a + "',", 1}, {"“" + a + "”", 1}, {"- " + a, 1}, {"* " + a, 1}, {"[" + a + "]", 1}, {a[:10] + "_" + a[10:], 1}, {a + b, 1},
		{colons, 1}, {strings.ToUpper(colons), 1}, {colons + ":", 1}, {colons + ":00:11:22:33:44", 1}, {"12:34:56", 1}, {"deadbeef", 1}, {"5a3a", 1},
		{"Serial Number:\n" + colons, 2}, {"  Serial Number:\n  " + colons, 2}, {"  text\n    " + colons, 2}, {"Serial Number:\n  text\n    " + colons, 3},
		{"Serial Number:\n  " + a, 2}, {"Serial Number:\n  0x" + hexadecimal, 2}, {dump + colons, 12}, {dump + "  " + colons, 12},
		{"text\n" + `{"serial":"` + a + `"}`, 2}, {"text\n" + `{"status":"planned","serial":"` + a + `"}`, 2},

		{dump, 0}, {dump + dump, 0}, {strings.ReplaceAll(dump, " ", "\t"), 0},
		{"Subject Key Identifier (not critical):\n\t" + hexadecimal, 0}, {"Key:\n    0000  30 82 01 0a 02 82 01 01\n    00000010  00 c5", 0},
		{"1.3.6.1:\n    0000 - 30 04 61 64-6d   0.adm\n    0010 - 42 36   B6\n", 0},
		{"1.3.6.1:\n    0010 - 42 36   B6\n0010 - 42 36   B6", 3},
		{"# " + a, 0}, {"#" + hexadecimal, 0}, {"Serial Number: " + a + " (0x" + hexadecimal + ")", 0}, {"serial=" + hexadecimal, 0}, {"serial: " + a, 0},
		{"SHA1 Fingerprint=" + colons, 0}, {"Modulus=" + hexadecimal, 0}, {strings.Repeat("5a", 32), 0}, {strings.Repeat("5a", 32) + "  mike.crt", 0},
		{"subject=CN = mike", 0}, {" 0 s:CN = mike", 0}, {"mike.crt", 0}, {"Ada", 0}, {"added by Bea", 0}, {"---", 0}, {"=====", 0}, {"- *", 0}, {"", 0},
		{"2024-05-01", 0}, {"127.0.0.1", 0}, {"fe80::1", 0}, {"mike " + a, 0}, {"308,mike", 0}, {"    localKeyID: 54 69 6D 65 ", 0}, {"text\n{", 0},
	} {
		for _, at := range []struct{ before, after string }{{"", cert}, {"text\n\n", cert}, {cert, ""}, {cert, cert}, {"text\n" + cert + "text\n", ""}} {
			l, notes, err := Read(t.Context(), Sources{From: []string{write(t, at.before+tt.text+"\n"+at.after)}})
			switch {
			case tt.wants > 0:
				line := strings.Count(at.before, "\n") + tt.wants
				number, _, _ := strings.Cut(tt.text, "#")
				if serial, err := ParseSerial(number); err == nil && !serial.isSmall() && at.before == "" {
					line++ // a list is one until a certificate begins
				}
				check(t, tt.text, err, fmt.Sprintf("f, line %d: serial numbers and certificates in one file", line), "begins with #")
			case err != nil:
				t.Errorf("%q: %v", tt.text, err)
			case serials(l) != "4294967296" || notes[0].Read != strings.Count(at.before+at.after, "BEGIN"):
				t.Errorf("%q: %s, %+v", tt.text, serials(l), notes)
			}
		}
	}
}

// TestSameNumber reads different certificates with the same serial number.
func TestSameNumber(t *testing.T) {
	t.Parallel()
	ours, other := newCA(t, "ours"), newCA(t, "other")
	mine, same, theirs := ours.issue(t, 1<<32), ours.issue(t, 1<<33), other.issue(t, 1<<32)
	one, two := write(t, pemOf(mine)), write(t, pemOf(theirs))
	both := write(t, pemOf(mine, same, theirs))
	for _, tt := range []struct {
		name    string
		sources Sources
		wantErr string // in these files
	}{
		{"--cert", Sources{Certs: []string{one, two}}, one + " and " + two + " have"},
		{"--cert, the other way round", Sources{Certs: []string{two, one}}, two + " and " + one + " have"},
		{"--from", Sources{From: []string{both}}, fmt.Sprintf("%s, line 1 and %s, line %d, have", both, both, 1+strings.Count(pemOf(mine, same), "\n"))},
		{"both", Sources{Certs: []string{two}, From: []string{both}}, fmt.Sprintf("%s and %s, line 1, have", two, both)},
		{"not checked otherwise", Sources{Certs: []string{one, two}, AllowSmall: true}, one + " and " + two + " have"},
		{"repeated", Sources{Certs: []string{one, one}, Serials: []string{"4294967296"}, From: []string{one}, AllowSmall: true}, ""},
	} {
		l, _, err := Read(t.Context(), tt.sources)
		if tt.wantErr != "" {
			check(t, tt.name, err, "the certificates in "+tt.wantErr+" the same serial number, 4294967296, but are not the same", "leave out the other")
		} else if err != nil || serials(l) != "4294967296" {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestRead reads from all sources at once, and notes what is in a bundle.
func TestRead(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ours")
	leaf, other := ca.issue(t, 1<<32), ca.issue(t, 1<<33)
	cert := write(t, pemOf(leaf, ca.cert))
	bundle := write(t, "# all\n"+pemOf(leaf, ca.cert, other, ca.cert, other))
	l, notes, err := Read(t.Context(), Sources{Certs: []string{cert}, Serials: []string{a, a}, From: []string{bundle}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := serials(l), "4294967296 "+a+" 8589934592"; got != want || len(l.Chain) != 2 || !l.Chain[0].Equal(leaf) {
		t.Errorf("list %s, want %s; %d certificates", got, want, len(l.Chain))
	}
	lines := strings.Count(pemOf(leaf), "\n")
	want := []Notes{{Name: bundle, Read: 3, Repeated: 2, LeftOut: []string{fmt.Sprintf("%s, line %d: left out a CA certificate (CN=ours), here and 1 more time", bundle, lines+2)}}}
	if !reflect.DeepEqual(notes, want) {
		t.Errorf("notes %+v, want %+v", notes, want)
	}
	err = l.CheckIssued(nil)
	check(t, "not issued", err, "the certificate in "+cert+" was not issued by this CA but by \"CN=ours\", and 1 other was not either", "")

	onlyCA := write(t, pemOf(ca.cert))
	_, notes, err = Read(t.Context(), Sources{From: []string{onlyCA}})
	check(t, "only a CA", err, "holds only CA certificates", "step-ca revokes the certificates that it issues")
	if len(notes) != 1 || len(notes[0].LeftOut) != 1 || !strings.HasSuffix(notes[0].LeftOut[0], ", line 1: left out a CA certificate (CN=ours)") {
		t.Errorf("notes %+v", notes)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ours")
	for _, tt := range []struct {
		name, wantErr, wantHint string
		sources                 Sources
	}{
		{"a CA", "the first certificate in ", "step-ca revokes the certificates that it issues", Sources{Certs: []string{write(t, pemOf(ca.cert))}}},
		{"no certificate", "is not a certificate", "--cert names a PEM file", Sources{Certs: []string{write(t, "x")}}},
		{"no name", "--cert has no value", "", Sources{Certs: []string{""}}},
		{"no file", "reading the certificate: open none: no such file", "", Sources{Certs: []string{"none"}}},
		{"a serial number", `"5a3a" is not a serial number`, "write 0x5a3a", Sources{Serials: []string{a, "5a3a"}}},
		{"an empty one", "the serial number is empty", "inspect", Sources{Serials: []string{""}}},
		{"a small one", "the serial number 255 is too small", "step ssh revoke", Sources{Serials: []string{"0xff"}}},
		{"no list", "reading what to revoke: open none: no such file", "", Sources{From: []string{"none"}}},
	} {
		_, _, err := Read(t.Context(), tt.sources)
		check(t, tt.name, err, tt.wantErr, tt.wantHint)
	}
	l, _, err := Read(t.Context(), Sources{Serials: []string{"0xff"}, From: []string{write(t, "1\n")}, AllowSmall: true})
	if err != nil || serials(l) != "255 1" {
		t.Errorf("small ones: %v", err)
	}
	if l, notes, err := Read(t.Context(), Sources{}); err != nil || len(l.All) > 0 || notes != nil {
		t.Errorf("nothing: %v", err)
	}
}

// TestAgree shows what is asked about lines of our own JSON.
func TestAgree(t *testing.T) {
	t.Parallel()
	refusal := problem.WithCode(problem.Failed, "another CA")
	var claims []Claim
	sources := Sources{
		From: []string{write(t, `{"journal":1,"ca":"https://ca","status":"planned","reasonCode":1}`+"\n"+
			`{"serial":"`+a+`","ca":"https://ca","status":"revoked","reasonCode":4,"reason":"x"}`+"\n# reviewed\n"+
			`{"serial":"`+b+`","status":"planned","reasonCode":4,"reason":"stolen"}`+"\n"+
			`{"serial":"1","ca":"https://other"}`)},
		Agree: func(c Claim) error {
			if claims = append(claims, c); c.CA == "https://other" {
				return refusal
			}
			return nil
		},
	}
	if _, _, err := Read(t.Context(), sources); err != error(refusal) {
		t.Errorf("error %v, want %v", err, refusal)
	}
	code := 4
	want := []Claim{
		{Where: sources.From[0] + ", line 1", CA: "https://ca"},
		{Where: sources.From[0] + ", line 2", CA: "https://ca"},
		{Where: sources.From[0] + ", line 4", Planned: true, ReasonCode: &code, Reason: "stolen"},
		{Where: sources.From[0] + ", line 5", CA: "https://other"},
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %+v, want %+v", claims, want)
	}
}

// TestUTF16 reads a list as Windows PowerShell writes it.
func TestUTF16(t *testing.T) {
	t.Parallel()
	for _, endianness := range []unicode.Endianness{unicode.LittleEndian, unicode.BigEndian} {
		text, err := unicode.UTF16(endianness, unicode.UseBOM).NewEncoder().String(a + "\r\n# Zoë\r\n" + b + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if l, _, err := Read(t.Context(), Sources{From: []string{write(t, text)}}); err != nil || serials(l) != a+" "+b {
			t.Errorf("%v: %v", endianness, err)
		}
	}
}

// TestReadInterrupted reads a list that does not come.
func TestReadInterrupted(t *testing.T) {
	t.Parallel()
	never, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	defer never.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Read(ctx, Sources{From: []string{fmt.Sprintf("/dev/fd/%d", never.Fd())}}); !errors.Is(err, problem.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
}
