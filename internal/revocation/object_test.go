package revocation

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
	"strings"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// fieldRow is a row of the table of JSON fields in docs/output.md.
var fieldRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([a-z ]+) \\| ([^|]+) \\| (.+) \\|$")

// TestSchema makes sure that docs/output.md lists the fields of an object, all of
// them in their order and with their types, and each status.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## JSON\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := fieldRow.FindAllStringSubmatch(section, -1)
	words := map[reflect.Kind]string{
		reflect.String: "string", reflect.Int: "integer", reflect.Bool: "boolean", reflect.Slice: "array of strings",
	}
	typ := reflect.TypeFor[Object]()
	if len(rows) != typ.NumField() {
		t.Fatalf("docs/output.md has %d fields, want %d", len(rows), typ.NumField())
	}
	for i, row := range rows {
		f := typ.Field(i)
		name, omit, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if got, want := fmt.Sprint(row[1], row[2], row[3] == "always"), fmt.Sprint(name, words[kind.Kind()], omit == ""); got != want {
			t.Errorf("field %d is %s in docs/output.md, want %s", i, got, want)
		}
		if name != "status" {
			continue
		}
		for _, s := range []Status{Revoked, AlreadyRevoked, Failed, Unknown, NotAttempted, Planned, NotRevoked, NotListed} {
			if !strings.Contains(row[4], "`"+string(s)+"`") {
				t.Errorf("docs/output.md lacks the status %s", s)
			}
		}
	}
}

// TestLine shows that an object is one line whatever text is in it, and that
// the text stays what it is.
func TestLine(t *testing.T) {
	t.Parallel()
	const nasty = "a\"b\nc\x1b[31m\u202e\u2028{{.}}😀\U000e0001\u3164\ufe0f\u05d0"
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "mike"}, NotAfter: time.Now(), DNSNames: []string{nasty},
		EmailAddresses: []string{"mike@example.com"}, IPAddresses: []net.IP{net.IPv6loopback}, URIs: []*url.URL{{Scheme: "spiffe", Host: "mike"}},
	}
	yes := true
	for _, o := range []Outcome{
		{Answer: Answer{Status: Revoked, RequestID: "id"}, Attempts: 1, Reason: &Reason{Code: 4, Name: "superseded", Text: nasty}},
		{Answer: Answer{Status: AlreadyRevoked}, Attempts: 2, Verified: &yes},
		{Answer: Answer{Status: Failed, Err: errors.New(nasty)}, Attempts: 1},
	} {
		o.Target = &target.Target{Serial: target.Serial{4: 0x80}, Cert: &target.Certificate{
			Subject: cert.Subject.String(), SANs: []string{nasty, "mike@example.com"}, NotBefore: cert.NotAfter, NotAfter: cert.NotAfter, Provisioner: nasty,
		}}
		o.Time, o.AuthorizedBy = time.Now(), "provisioner "+nasty
		object := o.Object("https://ca", "f00")
		line, err := object.Line()
		if err != nil || bytes.Count(line, []byte("\n")) != 1 || bytes.ContainsAny(line, "\x1b\u2028\u202e\U000e0001\u3164\ufe0f\u05d0") {
			t.Errorf("%v: %q", err, line)
		}
		var again Object
		if err := json.Unmarshal(line, &again); err != nil || !reflect.DeepEqual(&again, object) {
			t.Errorf("%v: %+v, want %+v", err, again, object)
		}
		o.Target.Cert.NotAfter = time.Time{} // nobody has checked it
		if end := o.Object("https://ca", "f00").NotAfter; end != "" {
			t.Errorf("it ends at %s", end)
		}
		if failed := again.Error != ""; failed != (o.Status == Failed) {
			t.Errorf("%s with the error %q", o.Status, again.Error)
		}
	}
}

// TestLongLine shows what is left of an object that has no room in a line.
func TestLongLine(t *testing.T) {
	t.Parallel()
	long, escaped := strings.Repeat("x", target.MaxLine), strings.Repeat("\U000e0001", 5*maxText)
	names := make([]string, 30_000)
	for i := range names {
		names[i] = fmt.Sprintf("2001:db8:1234:5678:9abc:def0:1234:%x", 0x1000+i)
	}
	for _, tt := range []struct {
		name   string
		object Object
		want   Object
	}{
		{"short", Object{Subject: "CN=mike", SANs: names[:3]}, Object{Subject: "CN=mike", SANs: names[:3]}},
		{"as long as may be", Object{Error: strings.Repeat("x", target.MaxLine-80)}, Object{Error: strings.Repeat("x", target.MaxLine-80)}},
		{"names", Object{Subject: "CN=mike", SANs: names, Error: "no"}, Object{Subject: "CN=mike", Error: "no"}},
		{"a reason on record", Object{Reason: long}, Object{Reason: Cut(long)}},
		{"an error", Object{Error: long}, Object{Error: long[:maxText] + "…"}},
		{"everything", Object{Reason: strings.Repeat("\x00", MaxReason), AuthorizedBy: escaped, CA: escaped, Subject: escaped, SANs: names, RequestID: escaped, Error: escaped},
			Object{Reason: strings.Repeat("\x00", MaxReason), AuthorizedBy: Cut(escaped), CA: Cut(escaped), Subject: Cut(escaped), RequestID: Cut(escaped), Error: Cut(escaped)}},
	} {
		tt.object.Serial, tt.want.Serial = "1", "1"
		before := tt.object
		line, err := tt.object.Line()
		if err != nil || len(line) > target.MaxLine {
			t.Errorf("%s: %d bytes, %v", tt.name, len(line), err)
		}
		var got Object
		if err := target.ReadObject(line, &got); err != nil || !reflect.DeepEqual(got, tt.want) || !reflect.DeepEqual(tt.object, before) {
			t.Errorf("%s: %v, %.200q", tt.name, err, line)
		}
	}
}

// TestSetRecord shows what a record changes.
func TestSetRecord(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	expired := &target.Certificate{NotAfter: time.Now().Add(-2 * time.Hour)}
	for _, tt := range []struct {
		name     string
		status   Status
		cert     *target.Certificate
		record   *Record
		want     Status
		verified *bool
	}{
		{"listed", Revoked, nil, &Record{Listed: true}, Revoked, &yes},
		{"recorded, but not listed", Revoked, nil, &Record{}, Revoked, &no},
		{"not on record", Revoked, nil, nil, Revoked, &no},
		{"expired, and left out", Revoked, expired, nil, Revoked, nil},
		{"an end that nobody has checked", Revoked, &target.Certificate{}, nil, Revoked, &no},
		{"expired, and listed", Revoked, expired, &Record{Listed: true}, Revoked, &yes},
		{"the lost answer", Unknown, nil, &Record{Listed: true}, AlreadyRevoked, &yes},
		{"a look", NotListed, nil, &Record{Listed: true}, AlreadyRevoked, &yes},
		{"a look at what is not revoked", NotRevoked, nil, nil, NotRevoked, &no},
	} {
		o := &Outcome{Target: &target.Target{Cert: tt.cert}, Answer: Answer{Status: tt.status, Err: errors.New("?")}}
		o.SetRecord(tt.record)
		if o.Status != tt.want || !reflect.DeepEqual(o.Verified, tt.verified) || tt.want == AlreadyRevoked && o.Err != nil {
			t.Errorf("%s: %+v", tt.name, o)
		}
	}
}
