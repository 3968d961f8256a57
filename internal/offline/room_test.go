package offline

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// TestEntrySize compares the sizes of entries with those that crypto/x509 makes.
func TestEntrySize(t *testing.T) {
	t.Parallel()
	key, cert := issue(t, "CA", nil, nil)
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, serial := range []string{"1", "127", "128", "255", "256", "340282366920938463463374607431768211455", "170141183460469231731687303715884105727"} {
		for _, code := range []int{0, 1, 10} {
			number, _ := new(big.Int).SetString(serial, 10)
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: number, RevocationTime: time.Now(), ReasonCode: code})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.RevokedCertificateEntries {
		if got := entrySize(e.SerialNumber.String(), e.ReasonCode); got != int64(len(e.Raw)) {
			t.Errorf("%v, reason %d: %d bytes, want %d", e.SerialNumber, e.ReasonCode, got, len(e.Raw))
		}
	}
}

// TestCRLSize compares the size of a CRL's record with that of the one that is
// built.
func TestCRLSize(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	list := f.list()
	ca := f.open(t, Config{ReasonCode: 4}, list)
	defer ca.Close(t.Context())
	for i, expiry := range []time.Time{{}, time.Now().Add(time.Hour), time.Now().Add(-time.Minute), time.Now().Add(-2 * time.Hour)} {
		err := ca.store.Revoke(&db.RevokedCertificateInfo{Serial: target.Serial{0: byte(i + 1)}.String(), ReasonCode: i, RevokedAt: time.Now(), ExpiresAt: expiry})
		if err != nil {
			t.Fatal(err)
		}
		list.Add(target.Serial{0: byte(i + 1)}, nil) // which is revoked already
	}
	list.Add(target.Serial{0: 100}, nil)
	list.All[len(list.All)-1].Done = true
	list.Add(target.Serial{0: 101}, &target.Certificate{NotAfter: time.Now().Add(-2 * time.Hour)})
	size, grows, err := ca.crlSize(list)
	if err != nil || grows != entrySize(f.leaf.SerialNumber.String(), 4) {
		t.Errorf("it grows by %d, %v", grows, err)
	}
	if a := ca.Revoke(t.Context(), request(list.All[0].Serial)); a.Err != nil {
		t.Fatal(a.Err)
	}
	if err := ca.buildCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := ca.store.GetCRL()
	if err != nil {
		t.Fatal(err)
	}
	if crl, err := x509.ParseRevocationList(info.DER); err != nil || len(crl.RevokedCertificateEntries) != 4 {
		t.Errorf("%+v, %v", crl, err)
	}
	if real := int64(len(ca.store.read)); size < real || size > real+1024 {
		t.Errorf("%d bytes, and it has %d", size, real)
	}
}

// TestRoom shows what happens to a CRL that the database has no room for.
func TestRoom(t *testing.T) {
	t.Parallel()
	large := &tooLarge{size: 70000, room: database.Room{Bytes: 1<<16 - 1, Remedy: "ALTER TABLE"}}
	f := newFixture(t)
	list := f.list()
	ca := f.open(t, Config{}, list)
	before, err := ca.store.Get(crlTable, crlKey)
	if err == nil {
		t.Fatalf("there is a CRL: %s", before)
	}
	ca.store.room = database.Room{Bytes: 100, Remedy: "ALTER TABLE"}
	if a := ca.Revoke(t.Context(), request(list.All[0].Serial)); a.Err != nil {
		t.Fatal(a.Err)
	}
	err = ca.Close(t.Context())
	if !begins(err, "the CRL was not rebuilt: could not store CRL in database: a CRL with everything that is revoked takes ") || problem.Code(err) != problem.Incomplete {
		t.Errorf("%v, code %d", err, problem.Code(err))
	}
	if hints := strings.Join(problem.Hints(err), "|"); !strings.Contains(hints, "\"ALTER TABLE\"") || strings.Contains(hints, rebuildHint) {
		t.Errorf("hints %s", hints)
	}
	for size, want := range map[int64]string{0: "", 1<<16 - 1: "", 70000: large.Error()} {
		if err := checkFits(size, large.room); !begins(err, want) {
			t.Errorf("%d: %v, want %s", size, err, want)
		}
		if err := checkFits(size, database.Room{}); err != nil {
			t.Error(err)
		}
	}
}
