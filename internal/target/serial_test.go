package target

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// check makes sure that an error has this text and, if that is not empty, this
// hint, and that it has no exit code yet.
func check(t *testing.T, what string, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(strings.Join(problem.Hints(err), "\n"), hint) {
		t.Errorf("%s: error %v with the hints %q; want %q with %q", what, err, problem.Hints(err), text, hint)
	}
	if code := problem.Code(problem.Default(err, problem.Usage)); code != problem.Usage {
		t.Errorf("%s: exit code %d", what, code)
	}
}

func TestParseSerial(t *testing.T) {
	t.Parallel()
	const decimal = "308893286343609293989051180431574390766"
	tests := []struct{ in, want, wantErr, wantHint string }{
		{in: decimal, want: decimal},
		{in: " " + decimal + "\n", want: decimal},
		{in: "0xe862aed7b5188396dd149b96a6e557ee", want: decimal},
		{in: "0XE862AED7B5188396DD149B96A6E557EE", want: decimal},
		{in: "0x00e862aed7b5188396dd149b96a6e557ee", want: decimal},
		{in: "e8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee", want: decimal},
		{in: "00:E8:62:AE:D7:B5:18:83:96:DD:14:9B:96:A6:E5:57:EE", want: decimal},
		{in: "1", want: "1"},
		{in: "0x" + strings.Repeat("ff", 20), want: "1461501637330902918203684832716283019655932542975"},
		{in: "", wantErr: "the serial number is empty"},
		{in: "  ", wantErr: "the serial number is empty"},
		{in: "0", wantErr: "the serial number 0 is zero"},
		{in: "0x0", wantErr: "the serial number 0x0 is zero"},
		{in: "00:00", wantErr: "the serial number 00:00 is zero"},
		{in: "-5", wantErr: `"-5" is not a serial number`, wantHint: "has no sign"},
		{in: "+5", wantErr: `"+5" is not a serial number`, wantHint: "has no sign"},
		{in: "0x", wantErr: `"0x" is not a serial number`, wantHint: "digits are missing"},
		{in: "0b101", wantErr: `"0b101" is not a serial number`, wantHint: "write 0x0b101"},
		{in: "0o17", wantErr: `"0o17" is not a serial number`, wantHint: "in decimal"},
		{in: "010", wantErr: `"010" is not a serial number`, wantHint: "without leading zeros"},
		{in: "1_0", wantErr: `"1_0" is not a serial number`, wantHint: "without underscores"},
		{in: "5a3a", wantErr: `"5a3a" is not a serial number`, wantHint: "write 0x5a3a"},
		{in: "DEADBEEF", wantErr: `"DEADBEEF" is not a serial number`, wantHint: "write 0xDEADBEEF"},
		{in: "foo.crt", wantErr: `"foo.crt" is not a serial number`, wantHint: "use --cert foo.crt"},
		{in: "foo.bar", wantErr: `"foo.bar" is not a serial number`, wantHint: "--where san=foo.bar "},
		{in: "laptop42", wantErr: `"laptop42" is not a serial number`, wantHint: "inspect https://laptop42"},
		{in: "10.1.2.3", wantErr: `"10.1.2.3" is not a serial number`, wantHint: "--where san=10.1.2.3 "},
		{in: "*.foo.bar", wantErr: `"*.foo.bar" is not a serial number`, wantHint: "in decimal"},
		{in: "foo.bar;id", wantErr: `"foo.bar;id" is not a serial number`, wantHint: "in decimal"},
		{in: "certs/foo", wantErr: `"certs/foo" is not a serial number`, wantHint: "use --cert certs/foo"},
		{in: "1.5", wantErr: `"1.5" is not a serial number`, wantHint: "in decimal"},
		{in: "1 2", wantErr: `"1 2" is not a serial number`, wantHint: "in decimal"},
		{in: "٣٤٥", wantErr: `"٣٤٥" is not a serial number`, wantHint: "in decimal"},
		{in: "5a:3", wantErr: `"5a:3" is not a serial number`, wantHint: "in decimal"},
		{in: "eyJhbGciOiJFUzI1NiJ9.e30.c2ln", wantErr: "an argument is a token, not a serial number", wantHint: "--token-file"},
		{in: "0x01" + strings.Repeat("00", 20), wantErr: "has 21 octets", wantHint: "at most 20 octets"},
		{in: strings.Repeat("9", 1<<20), wantErr: "with 1048576 digits is too long", wantHint: "at most 20 octets"},
		{in: strings.Repeat("x", 100), wantErr: `"` + strings.Repeat("x", 64) + `" is not a serial number`, wantHint: "in decimal"},
	}
	for _, tt := range tests {
		got, err := ParseSerial(tt.in)
		if tt.wantErr != "" {
			check(t, fmt.Sprintf("ParseSerial(%.40q)", tt.in), err, tt.wantErr, tt.wantHint)
		} else if err != nil || got.String() != tt.want {
			t.Errorf("ParseSerial(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

// TestExists shows that a file is recognized by its name, or where whoever calls
// looks for it.
func TestExists(t *testing.T) {
	t.Parallel()
	const file = "serial.go" // is there, in the working directory of this test
	_, err := ParseSerial(file)
	check(t, "ParseSerial", err, `"serial.go" is not a serial number`, "--where san=serial.go ")
	for _, tt := range []struct {
		exists   func(string) bool
		wantHint string
	}{
		{nil, "--where san=serial.go "},
		{func(string) bool { return false }, "--where san=serial.go "},
		{func(word string) bool { return word == file }, "use --cert serial.go to revoke the certificate in a file"},
	} {
		_, _, err := Read(t.Context(), Sources{Serials: []string{" serial.go "}, Exists: tt.exists})
		check(t, "Read", err, `"serial.go" is not a serial number`, tt.wantHint)
	}
}

func TestSerialOf(t *testing.T) {
	t.Parallel()
	limit := new(big.Int).Lsh(big.NewInt(1), 160)
	for _, tt := range []struct {
		n  *big.Int
		ok bool
	}{
		{big.NewInt(-1), false},
		{big.NewInt(0), false},
		{big.NewInt(1), true},
		{new(big.Int).Sub(limit, big.NewInt(1)), true},
		{limit, false},
	} {
		s, ok := SerialOf(tt.n)
		if ok != tt.ok || ok && s.Big().Cmp(tt.n) != 0 {
			t.Errorf("SerialOf(%v) = %v, %t", tt.n, s, ok)
		}
	}
}
