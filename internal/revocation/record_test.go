package revocation

import (
	"errors"
	"testing"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestSetReleased shows what is proven of a certificate that was released.
func TestSetReleased(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		record *Record
		listed error
		want   Status
		proven bool
	}{
		"gone":            {want: Released, proven: true},
		"still in a CRL":  {listed: errors.New("listed"), want: Released},
		"revoked again":   {record: &Record{Time: time.Now()}, want: Failed},
		"and in the list": {record: &Record{Time: time.Now(), Listed: true}, listed: errors.New("listed"), want: Failed},
	} {
		o := &Outcome{Target: &target.Target{}, Answer: Answer{Status: Released, Held: true}, Previous: "certificateHold"}
		o.SetReleased(tt.record, tt.listed)
		if o.Status != tt.want || *o.Verified != tt.proven || o.Record != tt.record || (o.Err != nil) != (tt.want == Failed) || (o.Previous == "") != (tt.want == Failed) {
			t.Errorf("%s: %+v, verified %t", name, o, *o.Verified)
		}
	}
}
