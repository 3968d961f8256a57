package authorize

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
)

// withNulls returns JSON values of a type, each with null in another place: as
// the value itself, a field, or an element.
func withNulls(t reflect.Type) (all []any) {
	all = append(all, nil)
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
	case t.Kind() == reflect.Pointer:
		all = append(all, withNulls(t.Elem())...)
	case t.Kind() == reflect.Slice:
		for _, v := range withNulls(t.Elem()) {
			all = append(all, []any{v})
		}
	case t.Kind() == reflect.Map:
		for _, v := range withNulls(t.Elem()) {
			all = append(all, map[string]any{"x": v})
		}
	case t.Kind() == reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || f.Anonymous || name == "-" {
				continue
			}
			for _, v := range withNulls(f.Type) {
				all = append(all, map[string]any{name: v})
			}
		}
	}
	return all
}

// TestNulls goes through the lists of provisioners that a CA can answer with, as
// far as they have null somewhere, and makes sure that none of them breaks more
// than itself.
func TestNulls(t *testing.T) {
	t.Parallel()
	_, leaf, leafKey := newMiniCA(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	good, err := json.Marshal(newJWK(t, "admin", leafKey, "password"))
	if err != nil {
		t.Fatal(err)
	}
	lists := []string{"null", "[]", "[null]", `[{"type":null}]`}
	for name, p := range map[string]provisioner.Interface{
		"JWK": &provisioner.JWK{}, "OIDC": &provisioner.OIDC{}, "GCP": &provisioner.GCP{}, "AWS": &provisioner.AWS{},
		"Azure": &provisioner.Azure{}, "ACME": &provisioner.ACME{}, "X5C": &provisioner.X5C{}, "K8sSA": &provisioner.K8sSA{},
		"SSHPOP": &provisioner.SSHPOP{}, "SCEP": &provisioner.SCEP{}, "Nebula": &provisioner.Nebula{},
	} {
		for _, v := range withNulls(reflect.TypeOf(p).Elem()) {
			object := map[string]any{}
			if name == "JWK" {
				_ = json.Unmarshal(good, &object)
			}
			fields, _ := v.(map[string]any)
			maps.Copy(object, fields)
			object["type"] = name
			item, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, fmt.Sprintf("[%s]", item), fmt.Sprintf("[null,%s,%s]", item, good))
		}
	}
	if len(lists) < 300 {
		t.Errorf("only %d lists", len(lists))
	}
	for _, list := range lists {
		var all provisioner.List
		if json.Unmarshal([]byte(list), &all) != nil {
			continue
		}
		for _, c := range []Credentials{
			{password: []byte("password")},
			{password: []byte("password"), config: Config{Provisioner: "admin"}},
			{password: []byte("password"), config: Config{KID: leafKey.KeyID}},
			{signingKey: leafKey},
			{signingKey: leafKey, x5c: []*x509.Certificate{leaf}},
		} {
			proof, err := c.Proof(t.Context(), fakeCA(all))
			if proof == nil == (err == nil) {
				t.Errorf("%s: the proof %v, %v", list, proof, err)
			}
		}
	}
}
