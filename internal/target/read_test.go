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
	long := strings.Repeat("1", maxLine)
	tests := []struct{ name, in, want, wantErr, wantHint string }{
		{name: "list", in: a + "\n" + b + "\n", want: a + " " + b},
		{name: "no last line break", in: a + "\n" + b, want: a + " " + b},
		{name: "CRLF, comments and blanks", in: "\r\n# x\r\n " + a + " # y\r\n\t\r\n" + b + "#z\r\n", want: a + " " + b},
		{name: "byte-order mark", in: "\ufeff" + a, want: a},
		{name: "joined files", in: "\ufeff" + a + "\n\ufeff" + b + "\n", want: a + " " + b},
		{name: "forms", in: "0xe862aed7b5188396dd149b96a6e557ee\ne8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee", want: a},
		{name: "empty", in: "", wantErr: "f names no certificate at all", wantHint: "failed?"},
		{name: "only comments", in: "# a\n\n  \n", wantErr: "f names no certificate at all"},
		{name: "bad line", in: a + "\n5a3a\n", wantErr: `f, line 2: "5a3a" is not a serial number`, wantHint: "write 0x5a3a"},
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
		{name: "text, number, then PEM", in: "text\n" + a + "\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1 is not a serial number"},
		{name: "number with a note in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a + " # note\n", wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + `{"serial":"` + a + `"}`, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "no line break before PEM", in: "name: -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", wantErr: "f, line 1: a certificate that does not begin or end on a line of its own", wantHint: "line break"},
		{name: "list, text, then PEM", in: a + "\ntext\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2 is not a serial number"},
		{name: "PEM, then list", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON", in: `{"serial":"` + a + `","status":"failed"}` + "\n# reviewed\n\n" + `{"serial":"` + b + `","error":"#"}`, want: a + " " + b},
		{name: "journal", in: `{"journal":1,"ca":"https://ca"}` + "\n" + `{"serial":"` + a + `","ca":"https://ca","status":"revoked","reasonCode":4}`, want: a},
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
		{name: "text of openssl", in: "Serial Number:\n    e8:62:ae:d7\n-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n5\n", wantErr: `f holds no certificate, but PEM of type "EC PARAMETERS"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, notes, err := Read(t.Context(), Sources{From: write(t, tt.in)})
			switch {
			case tt.wantErr != "":
				check(t, tt.name, err, tt.wantErr, tt.wantHint)
			case err != nil:
				t.Error(err)
			case serials(l) != tt.want || notes.Read-notes.Repeated != len(l.All) || filepath.Base(notes.Name) != "f":
				t.Errorf("%s, %+v; want %s", serials(l), notes, tt.want)
			}
		})
	}
}

// TestRead reads from all sources at once, and notes what is in a bundle.
func TestRead(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ours")
	leaf, other := ca.issue(t, 1<<32), ca.issue(t, 1<<33)
	cert := write(t, pemOf(leaf, ca.cert))
	bundle := write(t, "# all\n"+pemOf(leaf, ca.cert, other, ca.cert, other))
	l, notes, err := Read(t.Context(), Sources{Certs: []string{cert}, Serials: []string{a, a}, From: bundle})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := serials(l), "4294967296 "+a+" 8589934592"; got != want || len(l.Chain) != 2 || !l.Chain[0].Equal(leaf) {
		t.Errorf("list %s, want %s; %d certificates", got, want, len(l.Chain))
	}
	lines := strings.Count(pemOf(leaf), "\n")
	want := Notes{Name: bundle, Read: 3, Repeated: 2, LeftOut: []string{fmt.Sprintf("%s, line %d: left out the certificate of a CA (CN=ours), here and 1 more time", bundle, lines+2)}}
	if !reflect.DeepEqual(notes, want) {
		t.Errorf("notes %+v, want %+v", notes, want)
	}
	err = l.CheckIssued(nil)
	check(t, "not issued", err, "the certificate in "+cert+" was not issued by this CA but by \"CN=ours\", and 1 other was not either", "")

	onlyCA := write(t, pemOf(ca.cert))
	_, notes, err = Read(t.Context(), Sources{From: onlyCA})
	check(t, "only a CA", err, "holds certificates of CAs only", "step-ca revokes the certificates that it issues")
	if len(notes.LeftOut) != 1 || !strings.HasSuffix(notes.LeftOut[0], ", line 1: left out the certificate of a CA (CN=ours)") {
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
		{"no list", "reading what to revoke: open none: no such file", "", Sources{From: "none"}},
	} {
		_, _, err := Read(t.Context(), tt.sources)
		check(t, tt.name, err, tt.wantErr, tt.wantHint)
	}
	l, _, err := Read(t.Context(), Sources{Serials: []string{"0xff"}, From: write(t, "1\n"), AllowSmall: true})
	if err != nil || serials(l) != "255 1" {
		t.Errorf("small ones: %v", err)
	}
	if l, notes, err := Read(t.Context(), Sources{}); err != nil || len(l.All) > 0 || notes.Name != "" {
		t.Errorf("nothing: %v", err)
	}
}

// TestAgree shows what is asked about lines of our own JSON.
func TestAgree(t *testing.T) {
	t.Parallel()
	refusal := problem.WithCode(problem.Failed, "another CA")
	var claims []Claim
	sources := Sources{
		From: write(t, `{"journal":1,"ca":"https://ca","status":"planned","reasonCode":1}`+"\n"+
			`{"serial":"`+a+`","ca":"https://ca","status":"revoked","reasonCode":4,"reason":"x"}`+"\n# reviewed\n"+
			`{"serial":"`+b+`","status":"planned","reasonCode":4,"reason":"stolen"}`+"\n"+
			`{"serial":"1","ca":"https://other"}`),
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
		{Where: sources.From + ", line 1", CA: "https://ca"},
		{Where: sources.From + ", line 2", CA: "https://ca"},
		{Where: sources.From + ", line 4", Planned: true, ReasonCode: &code, Reason: "stolen"},
		{Where: sources.From + ", line 5", CA: "https://other"},
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
		if l, _, err := Read(t.Context(), Sources{From: write(t, text)}); err != nil || serials(l) != a+" "+b {
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
	if _, _, err := Read(ctx, Sources{From: fmt.Sprintf("/dev/fd/%d", never.Fd())}); !errors.Is(err, problem.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
}
