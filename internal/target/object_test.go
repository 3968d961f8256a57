package target

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// An object has fields of the types that ours have.
type object struct {
	Serial string   `json:"serial"`
	Code   *int     `json:"reasonCode,omitempty"`
	Sans   []string `json:"sans,omitempty"`
}

func TestReadObject(t *testing.T) {
	t.Parallel()
	const twice = "a key appears twice"
	for _, tt := range []struct{ name, in, want, wantErr string }{
		{"ours", `{"serial":"1","reasonCode":4,"sans":["a","}"]}`, `{"serial":"1","reasonCode":4,"sans":["a","}"]}`, ""},
		{"white space", " \t{ \"serial\" : \"1\" , \"reasonCode\"\t:4 }\r\n", `{"serial":"1","reasonCode":4}`, ""},
		{"none", `{}`, `{"serial":""}`, ""},
		{"null", `{"serial":null,"reasonCode":null}`, `{"serial":""}`, ""},
		{"others", `{"a":{"serial":"2","x":[{}]},"serial":"1","b":"\"serial\":\"3\"","":0}`, `{"serial":"1"}`, ""},
		{"other cases", `{"serial":"1","SERIAL":"2","Serial":"3","ſerial":"4","REASONCODE":4}`, `{"serial":"1"}`, ""},
		{"only another case", `{"SERIAL":"1"}`, `{"serial":""}`, ""},
		{"an escaped key", `{"\u0073erial":"1"}`, `{"serial":"1"}`, ""},
		{"an escaped value", `{"serial":"\"\\","reasonCode":4}`, `{"serial":"\"\\","reasonCode":4}`, ""},
		{"twice", `{"serial":"1","serial":"2"}`, "", twice},
		{"twice, once escaped", `{"serial":"1","\u0073erial":"1"}`, "", twice},
		{"twice, and not ours", `{"serial":"1","x":1,"x":1}`, "", twice},
		{"many keys", `{"serial":"1",` + strings.Join(manyKeys(maxKeys), ",") + `}`, "", "more than 100 keys"},
		{"another type", `{"serial":1}`, "", "cannot unmarshal number"},
		{"an array", `["serial"]`, "", "not a JSON object"},
		{"two objects", `{"serial":"1"}{"serial":"1"}`, "", "not a JSON object"},
		{"broken", `{"serial":"1"`, "", "not a JSON object"},
		{"no JSON in what is not ours", `{"serial":"1","x":secret}`, "", "not a JSON object"},
		{"empty", "\n", "", "not a JSON object"},
	} {
		var o object
		err := ReadObject([]byte(tt.in), &o)
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%s: error %v, want %s", tt.name, err, tt.wantErr)
			}
			continue
		}
		if got, _ := json.Marshal(o); err != nil || string(got) != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func manyKeys(n int) (members []string) {
	for i := range n {
		members = append(members, `"`+strings.Repeat("x", i)+`":0`)
	}
	return members
}

// FuzzReadObject compares ReadObject with a reader that goes from one token to
// the next.
func FuzzReadObject(f *testing.F) {
	for _, seed := range []string{`{"serial":"1"}`, `{"a":[{"serial":"2"}],"serial":"1","b":"\\"}`, `{"serial":"1","serial":"2"}`, `{ }`, `{"":{}}x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		defer bounded()()
		var got object
		err := ReadObject(line, &got)
		want, ok := byTokens(line)
		if !ok {
			if err == nil {
				t.Errorf("%q is taken: %+v", line, got)
			}
			return
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	})
}

// byTokens reads an object whose keys are all different.
func byTokens(line []byte) (o object, ok bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return o, false
	}
	values := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil || values[key.(string)] != nil {
			return o, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return o, false
		}
		values[key.(string)] = value
	}
	if _, err := d.Token(); err != nil {
		return o, false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, false
	}
	for name, into := range map[string]any{"serial": &o.Serial, "reasonCode": &o.Code, "sans": &o.Sans} {
		if values[name] != nil && json.Unmarshal(values[name], into) != nil {
			return o, false
		}
	}
	return o, true
}

func BenchmarkReadObject(b *testing.B) {
	line := []byte(`{"serial":"308893286343609293989051180431574390766","status":"planned","attempts":0,"time":"2026-03-01T12:00:00Z","reasonCode":4,"reasonName":"superseded","authorizedBy":"provisioner ci (JWK)","ca":"https://ca.example.com","subject":"CN=old.example.com","sans":["old.example.com"],"notAfter":"2026-03-02T08:30:00Z"}`)
	for b.Loop() {
		var o object
		if err := ReadObject(line, &o); err != nil {
			b.Fatal(err)
		}
	}
}
