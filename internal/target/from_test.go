package target

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// TestTables reads CSV files.
func TestTables(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want, wantErr, wantHint string }{
		{name: "one column", in: "serial\n" + a + "\n\n" + b + " # note\n", want: a + " " + b},
		{name: "other names", in: "\ufeffHost;\"Serial_Number\"\r\nmike;" + a + "\r\n\"an;na\";0x" + "e862aed7b5188396dd149b96a6e557ee\r\n", want: a},
		{name: "tabs", in: "serialNumber\thost\n " + b + " \t\n", wantErr: "f, line 1 is not a serial number"},
		{name: "quoted", in: "# all\nhost,serial,note\n\"a \"\"b\"\", c\",\"" + a + "\",\n,\"" + b + "\",\"\"\n", want: a + " " + b},
		{name: "no rows", in: "serial,host\n", wantErr: "f names no certificate at all"},
		{name: "no header", in: "mike," + a + "\n", wantErr: "f, line 1 is not a serial number", wantHint: "the first line of a CSV file names their column"},
		{name: "two columns", in: "serial,serialNumber\n" + a + "," + b, wantErr: "f, line 1 is not a serial number", wantHint: "names their column"},
		{name: "a column is missing", in: "serial,host\n" + a + "\n", wantErr: "f, line 2 has 1 column, and the header has 2"},
		{name: "a comment in the first column", in: "name,serial\n#5,\n", wantErr: "f, line 2 is not a serial number"},
		{name: "a comment", in: "name,serial\n# mike," + a + ",\n", wantErr: "f, line 2 has 3 columns"},
		{name: "a break in a field", in: "serial,note\n" + a + ",\"two\nlines\"\n", wantErr: "f, line 2 is not a row of CSV\nf, line 3 is not a row of CSV", wantHint: "one line"},
		{name: "half quoted", in: "serial,note\n" + a + ",x\"y\"\n", wantErr: "f, line 2 is not a row of CSV"},
		{name: "text behind", in: "serial,note\n\"" + a + "\"x,y\n", wantErr: "f, line 2 is not a row of CSV"},
		{name: "rounded", in: "serial,host\n3.08893E+38,mike\n", wantErr: "f, line 2 is not a serial number", wantHint: "a spreadsheet has rounded"},
		{name: "PEM", in: "serial\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2: serial numbers and certificates in one file"},
		{name: "not the first line", in: a + "\nserial\n", wantErr: "f, line 2 is not a serial number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, _, err := Read(t.Context(), Sources{From: []string{write(t, tt.in)}})
			if tt.wantErr != "" {
				check(t, tt.name, onlyNames(err), tt.wantErr, tt.wantHint)
			} else if err != nil || serials(l) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// onlyNames leaves out the directories of files in what errors say.
func onlyNames(err error) error {
	if err == nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		name, rest, _ := strings.Cut(line, " ")
		lines = append(lines, filepath.Base(name)+" "+rest)
	}
	p := problem.New("%s", strings.Join(lines, ""))
	for _, part := range problem.Parts(err) {
		for _, hint := range problem.Hints(part) {
			p = p.Hint("%s", hint)
		}
	}
	return p
}

// TestForms shows what is said about serial numbers in the forms of others.
func TestForms(t *testing.T) {
	t.Parallel()
	const hexadecimal = "E862AED7B5188396DD149B96A6E557EE"
	for _, tt := range []struct{ in, wantErr, wantHint string }{
		{"serial=" + hexadecimal, "line 1 is not a serial number", "sed 's/^serial=/0x/'"},
		{"serial=" + a, "line 1 is not a serial number", "decimal as it is"},
		{"Serial Number: " + a + " (0x" + hexadecimal + ")", "line 1 is not a serial number", "sed -n 's/.*Serial Number:"},
		{"Certificate:\n    Data:\n        Serial Number: " + a + " (0x" + hexadecimal + ")", "line 1 is not a serial number", kindHint},
		{`time="2026-11-26T08:00:00Z" level=info serial=` + a + ` status=201`, "line 1 is not a serial number", "grep -o ' serial=[0-9]*'"},
		{"Starting, Smallstep CA\n" + `level=info serial=` + a + ` status=201`, "line 2 is not a serial number", "grep -o ' serial=[0-9]*'"},
		{`"` + a + `"`, "line 1 is not a serial number", "without quotation marks"},
		{a + " " + b, "line 1 is not a serial number", "one serial number a line"},
		{"[\n\"" + a + `"]`, "line 1 is not a serial number", "jq -r '.[]'"},
		{"{\n  \"serial_number\": \"" + a + "\"\n}", "line 1 is not one of our JSON objects", "jq -r .serial_number"},
		{`{"serialNumber":"` + a + `"}`, "line 1 has no serial number", "jq -r .serialNumber"},
		{strings.Repeat("1", 61), "line 1 is not a serial number", kindHint},
		{"1_0", "line 1 is not a serial number", noUnderscores},
	} {
		_, _, err := Read(t.Context(), Sources{From: []string{write(t, tt.in+"\n")}})
		check(t, tt.in, err, tt.wantErr, tt.wantHint)
		for _, part := range problem.Parts(err) {
			if said := part.Error() + strings.Join(problem.Hints(part), ""); strings.Contains(said, a) || strings.Contains(said, hexadecimal) {
				t.Errorf("%s: shown: %s", tt.in, said)
			}
		}
	}
}

// TestBadLines shows how many bad lines are told, and of which files.
func TestBadLines(t *testing.T) {
	t.Parallel()
	bad := strings.Repeat("hunter2\n", 12)
	lines := func(from, to int) (all string) {
		for i := from; i <= to; i++ {
			all += fmt.Sprintf("f, line %d is not a serial number\n", i)
		}
		return all
	}
	object := `{"serial":"` + a + "\"}\n"
	for _, tt := range []struct{ name, in, want string }{
		{"three", a + "\nhunter2\n" + b + "\n010\n# x\n\nhunter2", "f, line 2 is not a serial number\nf, line 4: \"010\" is not a serial number\nf, line 7 is not a serial number"},
		{"the first is bad", "hunter2\n" + a + "\nhunter2", lines(1, 1) + lines(3, 3)},
		{"eleven", a + "\n" + strings.Repeat("hunter2\n", 11), lines(2, 11) + "f has 1 more bad line"},
		{"too many", a + "\n" + bad + a + "\n", lines(2, 11) + "f has 2 more bad lines"},
		{"numbers in another form", strings.Repeat("e862aed7b5188396dd149b96a6e557ee\n", 2), lines(1, 2)},
		{"no list", bad, lines(1, 1)},
		{"CSV", "serial,x\n" + strings.Repeat("hunter2,\n", 12), lines(2, 11) + "f has 2 more bad lines"},
		{"our JSON", object + "{}\n" + object + `{"serial":"hunter2"}` + "\nhunter2", "f, line 2 has no serial number\nf, line 4 is not a serial number\nf, line 5 is not one of our JSON objects"},
		{"other JSON", strings.Repeat(`{"serial_number":"1"}`+"\n", 3), "f, line 1 has no serial number"},
	} {
		_, _, err := Read(t.Context(), Sources{From: []string{write(t, tt.in)}})
		got := onlyNames(err).Error()
		if want := strings.TrimSuffix(tt.want, "\n"); got != want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, want)
		}
		if strings.Contains(fmt.Sprint(problem.Hints(err)), "hunter2") {
			t.Errorf("%s: shown", tt.name)
		}
	}
}

// TestDirectory reads the PEM files of a directory.
func TestDirectory(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ours")
	one, two := pemOf(ca.issue(t, 1<<32), ca.cert), pemOf(ca.issue(t, 1<<33), ca.cert)
	const key = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"
	good := map[string]string{"b.PEM": "text\n" + two, "a.crt": one, "key.pem": key, "chain.cer": pemOf(ca.cert), "list.txt": "x", "sub/c.pem": "x", "d.pem/x": "x"}
	for _, tt := range []struct {
		name    string
		files   map[string]string // besides the good ones
		alone   bool
		wantErr string
		hint    string
	}{
		{name: "good"},
		{name: "a list", files: map[string]string{"list.pem": a}, wantErr: "list.pem is not a PEM file"},
		{name: "a number beside a certificate", files: map[string]string{"e.pem": a + "\n" + one}, wantErr: "e.pem, line 1: serial numbers and certificates in one file"},
		{name: "CSV", files: map[string]string{"e.pem": "serial\n" + a}, wantErr: "e.pem is not a PEM file"},
		{name: "JSON", files: map[string]string{"e.pem": `{"serial":"` + a + `"}`}, wantErr: "e.pem is not a PEM file"},
		{name: "DER", files: map[string]string{"e.cert": "0\x82\x01\x0a\n1"}, wantErr: "e.cert is not a PEM file", hint: "step certificate format"},
		{name: "empty", files: map[string]string{"e.pem": ""}, wantErr: "e.pem names no certificate at all"},
		{name: "malformed", files: map[string]string{"e.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, wantErr: "e.pem, line 1: the certificate that begins here is malformed"},
		{name: "a key alone", alone: true, files: map[string]string{"key.pem": key}, wantErr: "holds no certificate, but PEM"},
		{name: "no PEM", alone: true, files: map[string]string{"x.key": key}, wantErr: "holds no PEM file", hint: "*.pem, *.crt, *.cer, *.cert"},
	} {
		dir := t.TempDir()
		for _, files := range []map[string]string{good, tt.files} {
			for name, text := range files {
				if tt.alone && good[name] == text && len(files) == len(good) {
					continue
				}
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		l, notes, err := Read(t.Context(), Sources{From: []string{dir}})
		if tt.wantErr != "" {
			check(t, tt.name, err, tt.wantErr, tt.hint)
			continue
		}
		if err != nil || serials(l) != "4294967296 8589934592" {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		left := fmt.Sprintf("%s, line %d: left out a CA certificate (CN=ours), here and 2 more times", filepath.Join(dir, "a.crt"), strings.Count(one, "\n")/2+1)
		if want := []Notes{{Name: dir, Files: 4, Read: 2, LeftOut: notes[0].LeftOut}}; !reflect.DeepEqual(notes, want) || len(notes[0].LeftOut) != 1 {
			t.Errorf("notes %+v; want %s", notes, left)
		}
		if got := l.Where(1); got != filepath.Join(dir, "b.PEM")+", line 2" {
			t.Errorf("Where: %s", got)
		}
	}
}

// TestSeveral reads several files, and tells which line of which has named what.
func TestSeveral(t *testing.T) {
	t.Parallel()
	const c, d = "340282366920938463463374607431768211455", "340282366920938463463374607431768211454"
	list, plan, nothingNew := write(t, "# x\n"+a+"\n"), write(t, `{"serial":"`+a+`"}`+"\n"+`{"serial":"`+b+`"}`), write(t, b+"\n")
	csv := write(t, "x,serial\n,"+d+"\n")
	var claims []string
	l, notes, err := Read(t.Context(), Sources{
		Serials: []string{c}, From: []string{list, plan, nothingNew, csv},
		Agree: func(c Claim) error { claims = append(claims, c.Where); return nil },
	})
	if err != nil || serials(l) != strings.Join([]string{c, a, b, d}, " ") || len(notes) != 4 || notes[1].Repeated != 1 {
		t.Fatalf("%v, %+v", err, notes)
	}
	l.Add(Serial{1}, nil)
	for i, want := range []string{"", list + ", line 2", plan + ", line 2", csv + ", line 2", ""} {
		if got := l.Where(i); got != want {
			t.Errorf("Where(%d) = %q, want %q", i, got, want)
		}
	}
	if want := []string{plan + ", line 1", plan + ", line 2"}; !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %q", claims)
	}
	_, notes, err = Read(t.Context(), Sources{From: []string{list, write(t, a+"\nx\n")}})
	check(t, "the second is bad", onlyNames(err), "f, line 2 is not a serial number", kindHint)
	if len(notes) != 2 || notes[0].Read != 1 {
		t.Errorf("notes %+v", notes)
	}
}
