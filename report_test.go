package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A fakeCA is an authority with made-up evidence.
type fakeCA struct {
	authority
	records map[target.Serial]*revocation.Record
	err     error
}

func (f fakeCA) Evidence(context.Context) (revocation.Evidence, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f, nil
}

func (f fakeCA) Find(_ context.Context, s target.Serial) (*revocation.Record, error) {
	return f.records[s], nil
}

func (fakeCA) CRL() *revocation.CRL        { return nil }
func (fakeCA) Cleared(target.Serial) error { return nil }

func (fakeCA) WhyMissing() error { return problem.New("not in the CRL yet").Hint("wait") }

// TestVerify shows what --verify makes of what is on record, and what it claims
// about the reason.
func TestVerify(t *testing.T) {
	t.Parallel()
	four := 4
	listed := &revocation.Record{Code: &four, Listed: true}
	silent := &revocation.Record{Listed: true} // of a CA before step-ca 0.30
	for _, tt := range []struct {
		name     string
		records  [3]*revocation.Record
		err      error
		offline  bool
		want     string // status, verified and reason of each
		wantErr  string
		wantCode int
	}{
		{
			name: "all on record", records: [3]*revocation.Record{listed, listed, listed},
			want: "revoked true superseded, already-revoked true superseded, already-revoked true superseded",
		},
		{
			name: "a CRL without reasons", records: [3]*revocation.Record{silent, silent, silent},
			want: "revoked true keyCompromise, already-revoked true -, already-revoked true -",
		},
		{
			name: "nothing on record", want: "revoked false keyCompromise, unknown false -, failed false -",
			wantErr: "1 revocation is accepted, but not proven: not in the CRL yet", wantCode: problem.Incomplete,
		},
		{
			name: "not in the CA's database", offline: true, want: "failed false -, unknown false -, failed false -",
		},
		{
			name: "no evidence", err: errors.New("no CRL"), want: "revoked - keyCompromise, unknown - -, failed - -",
			wantErr: "1 revocation is accepted, but not proven: no CRL", wantCode: problem.Incomplete,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ca := fakeCA{records: map[target.Serial]*revocation.Record{}, err: tt.err}
			list := &target.List{All: make([]target.Target, 3)}
			o := &options{verify: true, online: online.Config{URL: &url.URL{Scheme: "https", Host: "ca"}}}
			if tt.offline {
				o.offline, o.settings = &offline.Config{File: "ca.json"}, &offline.Settings{Roots: []*x509.Certificate{{}}}
			}
			r := newReport(o, list, revocation.Reason{Code: 1, Name: "keyCompromise"}, nil)
			for i, status := range []revocation.Status{revocation.Revoked, revocation.Unknown, revocation.Failed} {
				list.All[i].Serial = target.Serial{0: 1, 19: byte(i)}
				if tt.records[i] != nil {
					ca.records[list.All[i].Serial] = tt.records[i]
				}
				outcome := &revocation.Outcome{Target: &list.All[i], Answer: revocation.Answer{Status: status}}
				if status != revocation.Revoked {
					outcome.Err = errors.New("?")
				}
				r.count(outcome, 1)
				r.kept = append(r.kept, outcome)
			}
			kept := r.kept
			err := r.verify(t.Context(), ca)
			if got := fmt.Sprint(err); problem.Code(err) != tt.wantCode || err != nil && !strings.HasPrefix(got, tt.wantErr) {
				t.Errorf("error %v with the code %d, want %q and %d", err, problem.Code(err), tt.wantErr, tt.wantCode)
			}
			var got []string
			for _, outcome := range kept {
				object := r.object(outcome)
				verified, reason := "-", "-"
				if object.Verified != nil {
					verified = fmt.Sprint(*object.Verified)
				}
				if object.ReasonCode != nil {
					reason = object.ReasonName
				}
				got = append(got, fmt.Sprint(object.Status, " ", verified, " ", reason))
			}
			if got := strings.Join(got, ", "); got != tt.want {
				t.Errorf("outcomes: %s; want %s", got, tt.want)
			}
		})
	}
}
