package offline

import (
	"context"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestRecheck compares what a journal says with the database.
func TestRecheck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ca := f.open(t, Config{}, f.list())
	if a := ca.Revoke(t.Context(), request(f.list().All[0].Serial)); a.Status != revocation.Revoked {
		t.Fatalf("%+v", a)
	}
	if err := ca.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		amend   func(cfg map[string]any)
		cleared int
		done    []bool
		wantErr string
		code    int
	}{
		{name: "the database", ctx: t.Context(), cleared: 1, done: []bool{true, false, false}},
		{name: "a signal", ctx: cancelled, done: []bool{false, false, false}, wantErr: "interrupted", code: problem.Interrupted},
		{name: "no database", ctx: t.Context(), amend: func(cfg map[string]any) { cfg["db"].(map[string]any)["dataSource"] = "missing" },
			done: []bool{false, false, false}, wantErr: "the CA's database: ", code: problem.Usage},
		{name: "another one", ctx: t.Context(), amend: func(cfg map[string]any) { cfg["db"].(map[string]any)["dataSource"] = f.config },
			done: []bool{false, false, false}, wantErr: "opening the CA's database: ", code: problem.Failed},
	} {
		list := f.list()
		list.Add(target.Serial{0: 1}, nil) // in the journal alone
		list.Add(target.Serial{0: 2}, nil) // in neither
		list.All[0].Done, list.All[1].Done = true, true
		if tt.amend != nil {
			f.change(t, tt.amend)
		}
		s, err := ReadSettings(f.config)
		if err != nil {
			t.Fatal(err)
		}
		cleared, err := Recheck(tt.ctx, Config{Timeout: time.Minute}, s, list)
		if cleared != tt.cleared || !begins(err, tt.wantErr) || problem.Code(problem.Default(err, problem.Usage)) != tt.code {
			t.Errorf("%s: %d, %v with the code %d, want %d, %s", tt.name, cleared, err, problem.Code(err), tt.cleared, tt.wantErr)
		}
		for i, want := range tt.done {
			if list.All[i].Done != want {
				t.Errorf("%s: target %d is done: %t", tt.name, i, !want)
			}
		}
	}
}
