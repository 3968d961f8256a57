package offline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func TestReadSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, err := ReadSettings(f.config)
	if err != nil || len(s.Roots) != 1 || s.Roots[0].Subject.CommonName != "root" || s.CA.DNSNames[0] != "ca.example.com" {
		t.Fatalf("%+v, %v", s, err)
	}
	authority := func(amend func(authority map[string]any)) func(map[string]any) {
		return func(cfg map[string]any) { amend(cfg["authority"].(map[string]any)) }
	}
	const (
		notRead = "--ca-config names the CA's ca.json, --context the context that it is in"
		online  = "revoke online, by serial number or certificate"
	)
	for _, tt := range []struct {
		name       string
		amend      func(cfg map[string]any)
		want, hint string
	}{
		{"registration authority", authority(func(a map[string]any) { a["type"], a["certificateAuthority"] = "stepcas", "https://127.0.0.1:1" }),
			"FILE: this is a registration authority (stepcas), and its certificates are revoked by the CA behind it", online},
		{"linked", authority(func(a map[string]any) { a["deploymentType"] = "Linked" }), "FILE: this is a linked CA, which keeps its revocations elsewhere", online},
		{"no database", func(cfg map[string]any) { delete(cfg, "db") }, "FILE: the CA has no database (\"db\"), and step-ca cannot revoke without one", ""},
		{"null database", func(cfg map[string]any) { cfg["db"] = nil }, "FILE: the CA has no database (\"db\"), and step-ca cannot revoke without one", ""},
		{"no address", func(cfg map[string]any) { delete(cfg, "address") }, "FILE: the configuration is invalid: ", ""},
		{"no root", func(cfg map[string]any) { cfg["root"] = "missing" }, "reading the CA's root certificate: ", "check \"root\" in ca.json"},
		{"other types", func(cfg map[string]any) { cfg["dnsNames"] = 1 }, "reading the CA's configuration: error parsing FILE: ", notRead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.change(t, tt.amend)
			_, err := ReadSettings(f.config)
			if err == nil || !strings.HasPrefix(err.Error(), strings.Replace(tt.want, "FILE", f.config, 1)) || strings.Join(problem.Hints(err), "|") != tt.hint {
				t.Errorf("%v, hints %q", err, problem.Hints(err))
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := ReadSettings(missing); err == nil || !strings.HasPrefix(err.Error(), "reading the CA's configuration: error opening "+missing) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(missing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSettings(missing); err == nil || strings.Join(problem.Hints(err), "|") != notRead {
		t.Errorf("%v, hints %q", err, problem.Hints(err))
	}
}
