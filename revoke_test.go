package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

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
		{in: "main.go", wantErr: `"main.go" is not a serial number`, wantHint: "use --cert main.go"},
		{in: "certs/foo", wantErr: `"certs/foo" is not a serial number`, wantHint: "use --cert certs/foo"},
		{in: "1.5", wantErr: `"1.5" is not a serial number`, wantHint: "in decimal"},
		{in: "1 2", wantErr: `"1 2" is not a serial number`, wantHint: "in decimal"},
		{in: "٣٤٥", wantErr: `"٣٤٥" is not a serial number`, wantHint: "in decimal"},
		{in: "5a:3", wantErr: `"5a:3" is not a serial number`, wantHint: "in decimal"},
		{in: "eyJhbGciOiJFUzI1NiJ9.e30.c2ln", wantErr: "an argument is a token, not a serial number", wantHint: "--token-file"},
		{in: "0x01" + strings.Repeat("00", 20), wantErr: "has 21 octets", wantHint: "at most 20 octets"},
		{in: strings.Repeat("9", 1<<20), wantErr: "with 1048576 digits is too long", wantHint: "at most 20 octets"},
	}
	for _, tt := range tests {
		got, err := parseSerial(tt.in)
		if tt.wantErr == "" {
			if err != nil || got.String() != tt.want {
				t.Errorf("parseSerial(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
			}
			continue
		}
		checkProblem(t, fmt.Sprintf("parseSerial(%.40q)", tt.in), err, tt.wantErr, tt.wantHint)
	}
}

func TestParseReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in                string
		want              int
		wantErr, wantHint string
	}{
		{in: "", want: 0},
		{in: "0", want: 0},
		{in: "6", want: 6},
		{in: "8", want: 8},
		{in: "10", want: 10},
		{in: "keyCompromise", want: 1},
		{in: "key compromise", want: 1},
		{in: "KEY-COMPROMISE", want: 1},
		{in: "key_compromise", want: 1},
		{in: "cACompromise", want: 2},
		{in: "ca compromise", want: 2},
		{in: "affiliationchanged", want: 3},
		{in: "Superseded", want: 4},
		{in: "cessation of operation", want: 5},
		{in: "RemoveFromCRL", want: 8},
		{in: "privilegeWithdrawn", want: 9},
		{in: "AACompromise", want: 10},
		{in: "7", wantErr: "reason code 7 is not used by RFC 5280", wantHint: "0 to 6 and 8 to 10"},
		{in: "11", wantErr: "reason code 11 does not exist", wantHint: "0 to 6 and 8 to 10"},
		{in: "-1", wantErr: "reason code -1 does not exist", wantHint: "0 to 6 and 8 to 10"},
		{in: "1.0", wantErr: `unknown reason code "1.0"`, wantHint: "0 to 6 and 8 to 10"},
		{in: "foo", wantErr: `unknown reason code "foo"`, wantHint: "0 to 6 and 8 to 10"},
		{in: "keycompromize", wantErr: `unknown reason code "keycompromize"`, wantHint: "did you mean keyCompromise?"},
		{in: "supersede", wantErr: `unknown reason code "supersede"`, wantHint: "did you mean superseded?"},
		{in: "key comprimise", wantErr: `unknown reason code "key comprimise"`, wantHint: "did you mean keyCompromise?"},
	}
	for _, tt := range tests {
		got, err := parseReason(tt.in)
		if tt.wantErr == "" {
			if err != nil || got.code != tt.want {
				t.Errorf("parseReason(%q) = %v, %v; want code %d", tt.in, got, err, tt.want)
			}
			continue
		}
		checkProblem(t, fmt.Sprintf("parseReason(%q)", tt.in), err, tt.wantErr, tt.wantHint)
	}
}

// checkProblem checks that err is a usage error with this text and hint.
func checkProblem(t *testing.T, what string, err error, text, hint string) {
	t.Helper()
	var p *problem
	if !errors.As(err, &p) || p.code != exitUsage || !strings.Contains(p.Error(), text) {
		t.Errorf("%s: error %v; want a usage error with %q", what, err, text)
		return
	}
	if hints := strings.Join(p.hints, "\n"); !strings.Contains(hints, hint) {
		t.Errorf("%s: hints %q; want one with %q", what, hints, hint)
	}
}

func TestFlagsFirst(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want, given string }{
		{"123", "-- 123", ""},
		{"123 --reason x 456", "--reason x -- 123 456", "reason"},
		{"--offline 123 --reason x", "--offline --reason x -- 123", "offline reason"},
		{"123 --offline", "--offline -- 123", "offline"},
		{"-f 123", "-f -- 123", "force"},
		{"--offline=false 123", "--offline=false -- 123", "offline"},
		{"--reason=x 123 --reason-code 1", "--reason=x --reason-code 1 -- 123", "reason reasonCode"},
		{"-reason x 123", "-reason x -- 123", "reason"},
		{"--issuer a --password-file b", "--issuer a --password-file b --", "provisioner provisioner-password-file"},
		{"--reason=--offline 123", "--reason=--offline -- 123", "reason"},
		{"--reason --nonsense 123", "--reason --nonsense -- 123", "reason"},
		{"--reasonCode -1 123", "--reasonCode -1 -- 123", "reasonCode"},
		{"-5", "-- -5", ""},
		{"123 -- --reason", "-- 123 --reason", ""},
		{"- 123", "-- - 123", ""},
		{"--nonsense 123", "--nonsense -- 123", ""},
	}
	for _, tt := range tests {
		sorted, given, err := flagsFirst(allFlags(), strings.Fields(tt.in))
		if err != nil {
			t.Errorf("flagsFirst(%q): %v", tt.in, err)
		}
		if got := strings.Join(sorted, " "); got != tt.want {
			t.Errorf("flagsFirst(%q) = %q, want %q", tt.in, got, tt.want)
		}
		maps.DeleteFunc(given, func(_ string, known bool) bool { return !known })
		if got := strings.Join(slices.Sorted(maps.Keys(given)), " "); got != tt.given {
			t.Errorf("flagsFirst(%q): given %q, want %q", tt.in, got, tt.given)
		}
	}
}

func TestFlagWithoutValue(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, wantErr, wantHint string }{
		{"123 --reason", "--reason has no value", ""},
		{"--reason -- 123", "--reason has no value", ""},
		{"--reason --offline 123", "--reason has no value, but the flag --offline after it", "--reason=--offline"},
		{"--token -f 123", "--token has no value, but the flag -f after it", ""},
		{"--cert --key=x.key", "--cert has no value, but the flag --key after it", ""},
	}
	for _, tt := range tests {
		_, _, err := flagsFirst(allFlags(), strings.Fields(tt.in))
		checkProblem(t, tt.in, err, tt.wantErr, tt.wantHint)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"Zoë's ✔ 証明書 {{.}} %d", "Zoë's ✔ 証明書 {{.}} %d"},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x1b[31mred\x07", `\x1b[31mred\a`},
		{"right\u202eleft\u200b", `right\u202eleft\u200b`},
		{"\u0085\u009b", `\u0085\u009b`},
		{"bad \xff\xfe utf", `bad \xff\xfe utf`},
		{"\uFFFD", "\uFFFD"},
	}
	for _, tt := range tests {
		if got := printable(tt.in); got != tt.want {
			t.Errorf("printable(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestHelp makes sure that the help has every flag and every reason, that its
// lines fit a terminal, and that it speaks the name people type.
func TestHelp(t *testing.T) {
	t.Parallel()
	help := helpText()
	for _, f := range allFlags() {
		for _, name := range strings.Split(f.GetName(), ", ") {
			if dashed := strings.Repeat("-", min(len(name), 2)) + name; !strings.Contains(help, dashed) {
				t.Errorf("the help lacks %s", dashed)
			}
		}
	}
	for _, r := range reasons {
		if !strings.Contains(help, r.name) || !strings.Contains(help, r.when) {
			t.Errorf("the help lacks the reason %s", r.name)
		}
	}
	for _, line := range strings.Split(help, "\n") {
		if len(line) > 80 && !strings.Contains(line, "$ step") {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
	if usage, examples := strings.Index(help, "USAGE"), strings.Index(help, "EXAMPLES"); examples < 0 || examples > usage {
		t.Error("the help does not open with examples")
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want, wantErr string }{
		{in: "https://CA.example.com:9000", want: "https://ca.example.com:9000"},
		{in: "ca.example.com", want: "https://ca.example.com"},
		{in: "ca.example.com:443", want: "https://ca.example.com"},
		{in: "https://ca.example.com:443/1.0/revoke#x", want: "https://ca.example.com"},
		{in: "https://[::1]:9000/", want: "https://[::1]:9000"},
		{in: "http://ca.example.com", wantErr: "http://ca.example.com is not an HTTPS URL"},
		{in: "https://", wantErr: `"https://" is not the URL of a CA`},
		{in: "https://me:hunter2@ca", wantErr: "https://me:xxxxx@ca holds a user name"},
		{in: "ca example", wantErr: `"ca example" is not the URL of a CA`},
	}
	for _, tt := range tests {
		got, err := parseURL(tt.in)
		if tt.wantErr != "" {
			checkProblem(t, "parseURL "+tt.in, err, tt.wantErr, "")
		} else if err != nil || got.String() != tt.want {
			t.Errorf("parseURL(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/usr/bin/step": "/usr/bin/step", "": "''", "two words": "'two words'", "it's": `'it'\''s'`, "$(x)": "'$(x)'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
