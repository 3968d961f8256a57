package offline

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// A rival is the CA's database while a running CA uses it, too.
type rival struct {
	nosql.DB
	t             *testing.T
	ca            *CA
	ours, theirs  *big.Int // serial numbers
	before, after []*move  // of each build
	builds        int
}

// CmpAndSwap lets the running CA store its CRLs before ours and after it.
func (r *rival) CmpAndSwap(bucket, key, was, now []byte) ([]byte, bool, error) {
	if !bytes.Equal(bucket, crlTable) {
		return r.DB.CmpAndSwap(bucket, key, was, now)
	}
	var ours db.CertificateRevocationListInfo
	if err := json.Unmarshal(now, &ours); err != nil {
		r.t.Error(err)
	}
	n := r.builds
	r.builds++
	play := func(moves []*move) {
		if n < len(moves) && moves[n] != nil {
			r.overwrite(ours.Number+moves[n].ahead, moves[n].withOurs)
		}
	}
	play(r.before)
	stored, swapped, err := r.DB.CmpAndSwap(bucket, key, was, now)
	time.AfterFunc(minStay-time.Millisecond, func() { play(r.after) })
	return stored, swapped, err
}

// overwrite stores a CRL as step-ca does, whatever is there.
func (r *rival) overwrite(number int64, withOurs bool) {
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, serial := range []*big.Int{r.theirs, r.ours} {
		if serial != r.ours || withOurs {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, r.ca.chain[0], r.ca.signer)
	record, jsonErr := json.Marshal(&db.CertificateRevocationListInfo{Number: number, ExpiresAt: template.NextUpdate, Duration: time.Hour, DER: der})
	if err := errors.Join(err, jsonErr, r.Set(crlTable, crlKey, record)); err != nil {
		r.t.Error(err)
	}
}

// stored returns the CRL in the database.
func (r *rival) stored(t *testing.T) *x509.RevocationList {
	t.Helper()
	info, err := (&db.DB{DB: r.DB}).GetCRL()
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(info.DER)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A move is what a running CA stores: a CRL whose number is that of ours and so
// many more, with what we have revoked or without it.
type move struct {
	ahead    int64
	withOurs bool
}

// TestRival builds a CRL while a running CA stores others, before ours or while it
// must stay.
func TestRival(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		before, after []*move // of each build
		want          int64   // the number in the end; ours is 6 at first
		wantErr       string
	}{
		{name: "nobody", want: 6},
		{name: "before, with everything", before: []*move{{0, true}}, want: 6},
		{name: "before, without ours", before: []*move{{0, false}}, want: 7},
		{name: "before, twice", before: []*move{{0, false}, {0, false}}, want: 8},
		{name: "after, with everything, our number", after: []*move{{0, true}}, want: 7},
		{name: "after, without ours, our number", after: []*move{{0, false}}, want: 7},
		{name: "after, with everything, the next number", after: []*move{{1, true}}, want: 7},
		{name: "after, without ours, the next number", after: []*move{{1, false}}, want: 8},
		{name: "after, with everything, a lower number", after: []*move{{-1, true}}, want: 7},
		{name: "before and after", before: []*move{{0, false}}, after: []*move{nil, {0, false}}, want: 8},
		{
			name: "always", after: slices.Repeat([]*move{{0, false}}, maxBuilds), want: 5 + maxBuilds,
			wantErr: "the CRL was not rebuilt: another CRL has taken the place of ours 10 times, and lacks what is revoked",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca, r := openBesideRival(t)
				r.before, r.after = tt.before, tt.after
				if err := ca.buildCRL(t.Context()); !begins(err, tt.wantErr) {
					t.Errorf("%v, want %s", err, tt.wantErr)
				}
				time.Sleep(minStay) // for what the CA stores later
				list := r.stored(t)
				if got := list.Number.Int64(); got != tt.want {
					t.Errorf("the CRL has the number %d, want %d", got, tt.want)
				}
				if n := len(list.RevokedCertificateEntries); n != 2 && tt.wantErr == "" {
					t.Errorf("the CRL has %d entries", n)
				}
				if err := ca.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// openBesideRival opens a CA and revokes its certificate, while a running CA, whose
// CRL has the number 5, has revoked another.
func openBesideRival(t *testing.T) (*CA, *rival) {
	t.Helper()
	f := newFixture(t)
	list := f.list()
	ca := f.open(t, Config{}, list)
	r := &rival{DB: ca.database.DB, t: t, ca: ca, ours: f.leaf.SerialNumber, theirs: big.NewInt(1 << 62)}
	r.overwrite(5, false)
	if err := ca.store.Revoke(&db.RevokedCertificateInfo{Serial: r.theirs.String(), RevokedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if a := ca.Revoke(t.Context(), request(list.All[0].Serial)); a.Status != revocation.Revoked {
		t.Fatalf("%+v", a)
	}
	time.Sleep(time.Second) // in a bubble: what is revoked was revoked before the CRL is built
	ca.database.DB = r
	ca.settings.CA.DB.Type = nosql.PostgreSQLDriver
	return ca, r
}

// A stuck database takes no CRL, or does not close.
type stuck struct {
	nosql.DB
	build, close chan struct{}
}

func (s stuck) CmpAndSwap(bucket, key, was, now []byte) ([]byte, bool, error) {
	if bytes.Equal(bucket, crlTable) {
		<-s.build
	}
	return s.DB.CmpAndSwap(bucket, key, was, now)
}

func (s stuck) Close() error {
	<-s.close
	return s.DB.Close()
}

// TestSignal has a signal end a run whose CRL is not ready, or whose database does
// not close. What is missing is said while there is time for it.
func TestSignal(t *testing.T) {
	t.Parallel()
	const (
		noCRL     = "the CRL was not rebuilt: it was not ready 3s after the signal"
		notClosed = "the CA's database was not closed"
	)
	for _, tt := range []struct {
		name                string
		build, close, files bool // what is stuck, and whether the database is in files
		want                string
		took                time.Duration
	}{
		{name: "nothing", files: true},
		{name: "the CRL", build: true, files: true, want: noCRL + "\n" + notClosed, took: crlGrace},
		{name: "closing", close: true, files: true, want: notClosed, took: closeGrace},
		{name: "the CRL on a server", build: true, want: noCRL, took: crlGrace},
		{name: "closing a server", close: true, took: closeGrace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				ctx, signal := context.WithCancel(t.Context())
				ca := f.prepareFor(ctx, t, Config{}, &tls.Certificate{Leaf: f.leaf})
				list := f.list()
				if err := ca.Open(ctx, list); err != nil {
					t.Fatal(err)
				}
				ca.Revoke(ctx, request(list.All[0].Serial))
				s := stuck{DB: ca.database.DB, build: make(chan struct{}), close: make(chan struct{})}
				if !tt.build {
					close(s.build)
				}
				if !tt.close {
					close(s.close)
				}
				if ca.database.DB = s; !tt.files {
					ca.settings.CA.DB.Type = nosql.PostgreSQLDriver
				}
				start := time.Now()
				signal()
				err := ca.Close(ctx)
				if got := fmt.Sprint(err); err != nil && got != tt.want || err == nil && tt.want != "" || time.Since(start) != tt.took {
					t.Errorf("after %s: %v, want %s after %s", time.Since(start), err, tt.want, tt.took)
				}
				if tt.build {
					close(s.build)
				}
				if tt.close {
					close(s.close)
				}
				synctest.Wait()
				if tt.build { // nobody else does
					_ = s.DB.Close()
				}
			})
		})
	}
}
