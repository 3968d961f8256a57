package main

// What the README says about --format json is the schema: its table is read
// here, and objects have to conform to it.

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A field is a row of the table in the README.
type field struct {
	name, kind string
	always     bool
	values     []string // of status
}

var fieldRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([a-z ]+) \\| ([^|]+) \\| (.+) \\|$")

// readme is the README, or a section of it.
var readme = sync.OnceValue(func() string {
	b, err := os.ReadFile("README.md")
	if err != nil {
		panic(err)
	}
	return string(b)
})

func section(title string) string {
	_, text, _ := strings.Cut(readme(), "\n"+title+"\n")
	level := strings.Repeat("#", strings.Index(title, " ")) + " "
	text, _, _ = strings.Cut(text, "\n"+level)
	return text
}

// schema is the table of fields in the README.
var schema = sync.OnceValue(func() (fields []field) {
	for _, row := range fieldRow.FindAllStringSubmatch(section("## JSON"), -1) {
		f := field{name: row[1], kind: row[2], always: row[3] == "always"}
		if f.name == "status" {
			for _, word := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(row[4], -1) {
				f.values = append(f.values, word[1])
			}
		}
		fields = append(fields, f)
	}
	return fields
})

var kinds = map[string]func(any) bool{
	"string":  isString,
	"boolean": func(v any) bool { _, ok := v.(bool); return ok },
	"integer": func(v any) bool { n, ok := v.(json.Number); return ok && !strings.ContainsAny(n.String(), ".eE-") },
	"array of strings": func(v any) bool {
		list, ok := v.([]any)
		return ok && len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool { return !isString(v) })
	},
}

func isString(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

var formats = map[string]*regexp.Regexp{
	"serial":    regexp.MustCompile(`^[1-9][0-9]*$`),
	"time":      regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
	"notAfter":  regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
	"requestId": regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
}

// conform checks a line of output against the schema, and returns its status.
func conform(line []byte) (status, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil || d.More() {
		return "", fmt.Errorf("not one JSON object: %q (%v)", line, err)
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, f := range schema() {
		v, there := object[f.name]
		delete(object, f.name)
		switch s, _ := v.(string); {
		case !there && f.always:
			fail("%s is missing", f.name)
		case !there:
			continue
		case !kinds[f.kind](v):
			fail("%s is no %s: %v", f.name, f.kind, v)
		case f.values != nil && !slices.Contains(f.values, s), formats[f.name] != nil && !formats[f.name].MatchString(s):
			fail("%s is %q", f.name, s)
		}
	}
	for name := range object {
		fail("%s is not documented", name)
	}
	var o object_
	if err := json.Unmarshal(line, &o); err != nil {
		fail("%w", err)
	}
	_, errorless := slices.BinarySearch([]string{"already-revoked", "planned", "revoked"}, string(o.Status))
	switch {
	case o.ReasonCode != nil && reasonName(*o.ReasonCode) != o.ReasonName, o.ReasonCode == nil && o.ReasonName+o.Reason != "":
		fail("the reason is code %v, name %q, text %q", o.ReasonCode, o.ReasonName, o.Reason)
	case o.Status == statusRevoked && (o.ReasonCode == nil || o.AuthorizedBy == "" || o.Attempts == 0):
		fail("a revocation without reason, authority or attempt")
	case errorless && o.Error != "", (o.Status == statusFailed || o.Status == statusUnknown) && o.Error == "":
		fail("the error is %q", o.Error)
	case (o.Status == statusPlanned || o.Status == statusNotAttempted) && (o.Attempts != 0 || o.RequestID != ""):
		fail("there was an attempt")
	}
	if len(errs) > 0 {
		return o.Status, fmt.Errorf("%w\n%s", errors.Join(errs...), line)
	}
	return o.Status, nil
}

// object_ is object, whose name is taken there.
type object_ = object

// TestJSONSchema makes sure that the README lists the fields of an object, all
// of them in their order and with their types, and each status, and that its
// example conforms.
func TestJSONSchema(t *testing.T) {
	t.Parallel()
	words := map[reflect.Kind]string{
		reflect.String: "string", reflect.Int: "integer", reflect.Bool: "boolean", reflect.Slice: "array of strings",
	}
	typ := reflect.TypeFor[object]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, omit, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		want := fmt.Sprint(name, words[kind.Kind()], omit == "")
		if i >= len(schema()) {
			t.Fatalf("the README lacks the field %s", name)
		}
		if got := schema()[i]; fmt.Sprint(got.name, got.kind, got.always) != want {
			t.Errorf("field %d is %v in the README, want %s", i, got, want)
		}
	}
	if len(schema()) != typ.NumField() {
		t.Errorf("the README has %d fields, want %d", len(schema()), typ.NumField())
	}
	all := []string{"revoked", "already-revoked", "failed", "unknown", "not-attempted", "planned"}
	if got := schema()[1].values; !slices.Equal(got, all) {
		t.Errorf("the README has the statuses %q, want %q", got, all)
	}
	examples := regexp.MustCompile(`(?m)^\{.*\}$`).FindAllString(section("## JSON"), -1)
	if len(examples) == 0 {
		t.Error("the README has no example")
	}
	for _, example := range examples {
		if _, err := conform([]byte(example)); err != nil {
			t.Error(err)
		}
	}
}

// TestJSONObjects checks the object of every status, with everything that may
// be known or not, against the schema; also what text can do to a line.
func TestJSONObjects(t *testing.T) {
	t.Parallel()
	const nasty = "a\"b\nc\x1b[31m\u202e\u2028{{.}}\xff"
	serial := serialNumber{4: 0x80}
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: nasty}, NotAfter: time.Now(), DNSNames: []string{"mike.example.com"},
		EmailAddresses: []string{"mike@example.com"}, IPAddresses: []net.IP{net.IPv6loopback}, URIs: []*url.URL{{Scheme: "spiffe", Host: "mike"}},
	}
	yes, no := true, false
	found := &record{code: 7, reason: nasty, time: time.Now(), listed: true}
	tests := []struct {
		name    string
		outcome outcome
		reason  any // code and text of the reason
	}{
		{"revoked", outcome{status: statusRevoked, attempts: 1}, "4 text"},
		{"verified", outcome{status: statusRevoked, attempts: 2, verified: &yes, record: &record{code: 4, listed: true}}, "4 text"},
		{"not listed", outcome{status: statusRevoked, attempts: 1, verified: &no}, "4 text"},
		{"before", outcome{status: statusAlreadyRevoked, err: errAlreadyRevoked, attempts: 1}, nil},
		{"before, read", outcome{status: statusAlreadyRevoked, verified: &yes, record: found}, "7 " + strings.ToValidUTF8(nasty, "\uFFFD")},
		{"failed", outcome{status: statusFailed, err: errors.New(nasty), attempts: 1}, nil},
		{"unknown", outcome{status: statusUnknown, err: noAnswer{errors.New(nasty)}, attempts: 9, verified: &no}, nil},
		{"not attempted", outcome{status: statusNotAttempted}, nil},
		{"not attempted, with an error", outcome{status: statusNotAttempted, err: errors.New("x")}, nil},
		{"planned", outcome{status: statusPlanned, err: errPlanned}, "4 text"},
	}
	for _, tt := range tests {
		for _, cert := range []*certificate{nil, certificateOf(&x509.Certificate{}, ""), certificateOf(cert, "")} {
			o := tt.outcome
			o.target, o.time, o.authorizedBy = &target{serial: serial, cert: cert}, time.Now(), "provisioner "+nasty
			if o.attempts > 0 {
				o.requestID = "5c5f1c0b-9a3e-4ad5-9f4e-0d1f8c5e2a11"
			}
			line, err := json.Marshal(o.object(&options{caURL: &url.URL{Scheme: "https", Host: "ca"}, reasonCode: reasons[4], reason: "text"}))
			if err != nil {
				t.Fatal(err)
			}
			got, err := conform(line)
			if err != nil || got != o.status || bytes.ContainsAny(line, "\n\x1b\u2028") {
				t.Errorf("%s: status %s, %v\n%s", tt.name, got, err, line)
			}
			var j object
			if err := json.Unmarshal(line, &j); err != nil {
				t.Error(err)
			}
			if has := j.ReasonCode != nil; has != (tt.reason != nil) || has && fmt.Sprint(*j.ReasonCode, " ", j.Reason) != tt.reason {
				t.Errorf("%s: the reason is %q, want %v", tt.name, line, tt.reason)
			}
		}
	}
}
