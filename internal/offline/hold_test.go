package offline

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// meanwhile is a database in which somebody else changes the record of a hold after
// it was read.
type meanwhile struct {
	nosql.DB
	change func(serial []byte) error
}

func (m *meanwhile) Get(bucket, key []byte) ([]byte, error) {
	value, err := m.DB.Get(bucket, key)
	if change := m.change; change != nil && bytes.Equal(bucket, []byte("revoked_x509_certs")) {
		m.change = nil
		return value, errors.Join(err, change(key))
	}
	return value, err
}

// asked asks for a revocation with a reason code.
func asked(serial target.Serial, code int) revocation.Request {
	return revocation.Request{Serial: serial, Reason: revocation.Reason{Code: code, Text: "now"}}
}

// TestHold lifts holds, and leaves everything else as it is: other revocations, and
// a hold that somebody else has changed since it was read.
func TestHold(t *testing.T) {
	t.Parallel()
	const none, hold, release = -1, revocation.CertificateHold, revocation.RemoveFromCRL
	failed := func(why string) revocation.Answer {
		return revocation.Answer{Status: revocation.Failed, Err: &refusal{why}, Next: revocation.Alone}
	}
	already := revocation.Answer{Status: revocation.AlreadyRevoked}
	for _, tt := range []struct {
		name             string
		was, asked, then int // reason codes; then is that of the change in between
		want             revocation.Answer
		left             int
	}{
		{"revoked for good", hold, 1, 0, revocation.Answer{Status: revocation.Revoked, Held: true}, 1},
		{"unspecified", hold, 0, 0, revocation.Answer{Status: revocation.Revoked, Held: true}, 0},
		{"released", hold, release, 0, revocation.Answer{Status: revocation.Released, Held: true}, none},
		{"held again", hold, hold, 0, already, hold},
		{"held, revoked before", 1, hold, 0, already, 1},
		{"another reason", 1, 4, 0, already, 1},
		{"not revoked", none, release, 0, failed("it is not on hold: it is not revoked"), none},
		{"not on hold", 1, release, 0, failed("it is not on hold: it was revoked for good, with the reason code 1"), 1},
		{"of an older step-ca", release, release, 0, failed("it is not on hold: it was revoked for good, with the reason code 8"), release},
		{"revoked, and meanwhile too", hold, 1, 4, already, 4},
		{"revoked, and meanwhile released", hold, 1, none, failed("its hold was released meanwhile"), none},
		{"revoked, and meanwhile held again", hold, 1, hold, failed("its hold was changed meanwhile"), hold},
		{"released, and meanwhile too", hold, release, none, failed("its hold was released meanwhile"), none},
		{"released, and meanwhile revoked", hold, release, 4, failed("it is not on hold: it was revoked meanwhile for good, with the reason code 4"), 4},
		{"released, and meanwhile held again", hold, release, hold, failed("its hold was changed meanwhile"), hold},
	} {
		for _, byHost := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				list := f.list()
				serial := list.All[0].Serial
				var ca *CA
				if byHost {
					if ca = f.prepareFor(t.Context(), t, Config{ByHost: true}, nil); ca.Open(t.Context(), list) != nil {
						t.Fatal("not opened")
					}
				} else {
					ca = f.open(t, Config{}, list)
				}
				if tt.was != none {
					put(t, ca.database.DB, serial, tt.was, "before")
				}
				if tt.then != 0 {
					inner := ca.database.DB
					ca.database.DB = &meanwhile{inner, func(key []byte) error {
						if tt.then != none {
							put(t, inner, serial, tt.then, "meanwhile")
							return nil
						}
						return inner.Del([]byte("revoked_x509_certs"), key)
					}}
				}
				got := ca.Revoke(t.Context(), asked(serial, tt.asked))
				if got.Err != nil && tt.want.Err != nil && got.Err.Error() == tt.want.Err.Error() {
					got.Err = tt.want.Err
				}
				if got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
				left, err := ca.database.Revocation(serial.String())
				switch {
				case err != nil || (left == nil) != (tt.left == none):
					t.Errorf("left is %+v, %v", left, err)
				case left != nil && (left.ReasonCode != tt.left || !left.ExpiresAt.Equal(f.leaf.NotAfter) || got.Held != (left.Reason == "now")):
					t.Errorf("left is %+v", left)
				}
				if err := ca.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// put stores the record of a revocation as somebody else would.
func put(t *testing.T, in nosql.DB, serial target.Serial, code int, text string) {
	t.Helper()
	cert, err := (&db.DB{DB: in}).GetCertificate(serial.String())
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(&db.RevokedCertificateInfo{Serial: serial.String(), ReasonCode: code, Reason: text, RevokedAt: time.Now(), ExpiresAt: cert.NotAfter})
	if err := errors.Join(err, in.Set([]byte("revoked_x509_certs"), []byte(serial.String()), record)); err != nil {
		t.Fatal(err)
	}
}

// TestLookForHolds counts what is on hold.
func TestLookForHolds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	list := f.list()
	for i := range 3 {
		list.Add(target.Serial{0: byte(i + 1)}, nil)
	}
	list.All[3].Done = true
	ca := f.open(t, Config{}, f.list())
	err := errors.Join(
		ca.store.Revoke(&db.RevokedCertificateInfo{Serial: list.All[0].Serial.String(), ReasonCode: revocation.CertificateHold}),
		ca.store.Revoke(&db.RevokedCertificateInfo{Serial: list.All[1].Serial.String(), ReasonCode: 1}),
		ca.Close(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	h, err := LookForHolds(t.Context(), Config{}, ca.settings, list)
	if err != nil || h.Held != 1 || h.Others() != 2 || h.Revoked != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	if h.Refuse(list.All[0].Serial) != nil || h.Refuse(list.All[1].Serial) == nil || h.Refuse(list.All[2].Serial) == nil {
		t.Errorf("%+v", h)
	}
}

// TestAgrees compares CRLs that a running CA has stored with what is on record.
func TestAgrees(t *testing.T) {
	t.Parallel()
	now := time.Now()
	entry := func(serial int64, code int) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: big.NewInt(serial), ReasonCode: code}
	}
	record := func(serial string, code int) db.RevokedCertificateInfo {
		return db.RevokedCertificateInfo{Serial: serial, ReasonCode: code, RevokedAt: now.Add(-time.Minute)}
	}
	later, expired := record("3", 4), record("4", 4)
	later.RevokedAt, expired.ExpiresAt = now.Add(time.Minute), now.Add(-2*time.Hour)
	revoked := []db.RevokedCertificateInfo{record("1", 1), record("2", 0), later, expired, record("", 1), record("1", 1)}
	for name, tt := range map[string]struct {
		listed []x509.RevocationListEntry
		want   bool
	}{
		"all":                          {[]x509.RevocationListEntry{entry(1, 1), entry(2, 0)}, true},
		"and what is newer or expired": {[]x509.RevocationListEntry{entry(1, 1), entry(2, 0), entry(3, 6), entry(4, 4)}, true},
		"and one that is no number":    {[]x509.RevocationListEntry{entry(1, 1), entry(2, 0), entry(0, 1)}, true},
		"without reasons":              {[]x509.RevocationListEntry{entry(1, 0), entry(2, 0)}, true},
		"with a hold that was lifted":  {[]x509.RevocationListEntry{entry(1, 1), entry(2, 6)}, false},
		"with one that was released":   {[]x509.RevocationListEntry{entry(1, 1), entry(2, 0), entry(5, 6)}, false},
		"without one":                  {[]x509.RevocationListEntry{entry(1, 1)}, false},
	} {
		if got := agrees(&x509.RevocationList{RevokedCertificateEntries: tt.listed}, revoked, now); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
