//go:build unix

package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// The table of fields in docs/output.md is the schema of --format json. All objects
// that the plugin prints must conform to it.

// A field is a row of the table.
type field struct {
	name, kind string
	always     bool
	values     []string // of status
}

var fieldRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([a-z ]+) \\| ([^|]+) \\| (.+) \\|$")

// schema is the table of fields.
var schema = sync.OnceValue(func() (fields []field) {
	for _, row := range fieldRow.FindAllStringSubmatch(section("docs/output.md", "JSON"), -1) {
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
	"notBefore": regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
	"root":      regexp.MustCompile(`^[0-9a-f]{64}$`),
	"notAfter":  regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
	"requestId": regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
}

// printed has the fields of an object that conform compares with each other.
type printed struct {
	Serial, Status          string
	Attempts                int
	ReasonCode              *int
	ReasonName, Reason      string
	PreviousReason          string
	AuthorizedBy, RequestID string
	Error                   string
}

// reasonNames are the reason codes of RFC 5280, section 5.3.1.
var reasonNames = map[int]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// conform checks a line of output against the schema.
func conform(line []byte) (*printed, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil || d.More() {
		return nil, fmt.Errorf("not one JSON object: %q (%v)", line, err)
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
	o := &printed{}
	if err := json.Unmarshal(line, o); err != nil {
		fail("%w", err)
	}
	for _, is := range o.contradictions() {
		fail("%s", is)
	}
	if len(errs) > 0 {
		return o, fmt.Errorf("%w\n%s", errors.Join(errs...), line)
	}
	return o, nil
}

// contradictions lists the fields of an object that do not go together.
func (o *printed) contradictions() (list []string) {
	for what, is := range map[string]bool{
		"a reason code with another name":                    o.ReasonCode != nil && cmp.Or(reasonNames[*o.ReasonCode], strconv.Itoa(*o.ReasonCode)) != o.ReasonName,
		"a reason without its code":                          o.ReasonCode == nil && o.ReasonName+o.Reason != "",
		"a revocation without reason, authority or attempt":  o.Status == "revoked" && (o.ReasonCode == nil || o.AuthorizedBy == "" || o.Attempts == 0),
		"an error of what went well":                         o.Error != "" && slices.Contains([]string{"already-revoked", "not-listed", "not-revoked", "planned", "released", "revoked"}, o.Status),
		"a release of what was not on hold, or is on record": o.Status == "released" && (o.PreviousReason != "certificateHold" || o.ReasonCode != nil || o.AuthorizedBy == "" || o.Attempts == 0),
		"a failure without an error":                         o.Error == "" && (o.Status == "failed" || o.Status == "unknown"),
		"an authority for a look":                            o.AuthorizedBy != "" && (o.Status == "not-listed" || o.Status == "not-revoked"),
		"an attempt of what was not attempted":               slices.Contains([]string{"planned", "not-attempted", "not-listed", "not-revoked"}, o.Status) && (o.Attempts != 0 || o.RequestID != ""),
	} {
		if is {
			list = append(list, what)
		}
	}
	return list
}

func cmdObjects(ts *testscript.TestScript, neg bool, want []string) {
	if neg {
		ts.Fatalf("usage: objects [STATUS...]")
	}
	var got []string
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		o, err := conform([]byte(line))
		ts.Check(err)
		got = append(got, o.Status)
	}
	slices.Sort(got) // of several under way any may end first
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		ts.Fatalf("objects %q, want %q", got, want)
	}
}
