package offline

import (
	"testing"
	"time"

	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestByHost revokes in the name of the host, at CAs whose provisioners are of no
// use, and finds what step-ca would have stored, but for a provisioner and a token.
func TestByHost(t *testing.T) {
	t.Parallel()
	provisioners := func(list ...any) func(cfg map[string]any) {
		return func(cfg map[string]any) { cfg["authority"] = map[string]any{"provisioners": list} }
	}
	for name, amend := range map[string]func(cfg map[string]any){
		"as it is":          func(map[string]any) {},
		"no CRLs":           func(cfg map[string]any) { delete(cfg, "crl") },
		"no provisioners":   provisioners(),
		"one that is wrong": provisioners(map[string]any{"type": "X5C", "name": "no roots"}),
		"two of a name":     provisioners(map[string]any{"type": "ACME", "name": "web"}, map[string]any{"type": "ACME", "name": "web"}),
		"remote management": func(cfg map[string]any) { cfg["authority"] = map[string]any{"enableAdmin": true} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.change(t, amend)
			list := f.list()
			unknown := target.Serial{0: 1}
			list.Add(unknown, nil)
			ca := f.prepareFor(t.Context(), t, Config{ByHost: true, AllowUnknown: true}, nil)
			if err := ca.Open(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			for i, notAfter := range []time.Time{f.leaf.NotAfter, {}} {
				serial := list.All[i].Serial
				for _, want := range []revocation.Status{revocation.Revoked, revocation.AlreadyRevoked} {
					if a := ca.Revoke(t.Context(), request(serial)); a != (revocation.Answer{Status: want}) {
						t.Fatalf("%+v, want %s", a, want)
					}
				}
				got, err := ca.database.Revocation(serial.String())
				if err != nil || time.Since(got.RevokedAt) > time.Hour || got.RevokedAt.Location() != time.UTC {
					t.Fatalf("%+v, %v", got, err)
				}
				want := db.RevokedCertificateInfo{Serial: serial.String(), ReasonCode: 4, Reason: "moved", RevokedAt: got.RevokedAt, ExpiresAt: notAfter}
				if *got != want {
					t.Errorf("stored %+v, want %+v", *got, want)
				}
			}
			evidence, err := ca.Evidence(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range list.All {
				if r, err := evidence.Find(t.Context(), list.All[i].Serial); err != nil || r == nil || r.Listed != (name != "no CRLs") {
					t.Errorf("%+v, %v", r, err)
				}
			}
			if err := ca.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
