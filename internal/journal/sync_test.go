package journal

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A disk notes when it was asked to sync.
type disk struct {
	began time.Time
	syncs []time.Duration // since then
	takes time.Duration
	err   error // of the next sync
}

func (d *disk) Sync() error {
	err := d.err
	d.syncs, d.err = append(d.syncs, time.Since(d.began)), nil
	time.Sleep(d.takes)
	return err
}

// TestSync shows when lines are put on the disk.
func TestSync(t *testing.T) {
	t.Parallel()
	const ms, s = time.Millisecond, time.Second
	for _, tt := range []struct {
		name         string
		writes, want []time.Duration
		takes        time.Duration
	}{
		{name: "none"},
		{name: "one", writes: []time.Duration{0}, want: []time.Duration{s}},
		{name: "many at once, and one that waits", writes: []time.Duration{0, 1, 2, 999 * ms, 1500 * ms}, want: []time.Duration{s, 2500 * ms}},
		{name: "a pause", writes: []time.Duration{0, 20 * s, 20*s + 1}, want: []time.Duration{s, 21 * s}},
		{name: "a slow disk", writes: []time.Duration{0, 1500 * ms, 2 * s, 9 * s}, want: []time.Duration{s, 5 * s, 10 * s}, takes: 3 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{began: time.Now(), takes: tt.takes}
				j, err := Open(t.Context(), filepath.Join(t.TempDir(), "journal"), false, listOf(t, "1"), agreed, nil)
				if err := errors.Join(err, j.Begin(Header{})); err != nil {
					t.Fatal(err)
				}
				j.sync.file = d
				for _, at := range tt.writes {
					time.Sleep(at - time.Since(d.began))
					if err := j.Write(revoked("1", "")); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Minute)
				if err := j.Close(); err != nil || !slices.Equal(d.syncs, tt.want) {
					t.Errorf("synced at %v, want %v; %v", d.syncs, tt.want, err)
				}
			})
		})
	}
}

// TestSyncError shows that a disk that fails is noticed, at the latest at the end.
func TestSyncError(t *testing.T) {
	t.Parallel()
	for _, writesOn := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{began: time.Now(), err: errors.New("bad sector"), takes: time.Second}
			j, err := Open(t.Context(), filepath.Join(t.TempDir(), "journal"), false, listOf(t, "1"), agreed, nil)
			if err := errors.Join(err, j.Begin(Header{})); err != nil {
				t.Fatal(err)
			}
			j.sync.file = d
			if err := j.Write(revoked("1", "")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(syncInterval + time.Millisecond) // in the middle of the sync
			if writesOn {
				time.Sleep(d.takes)
				if err := j.Write(revoked("1", "")); err == nil || err.Error() != "writing the journal: bad sector" {
					t.Errorf("error %v", err)
				}
			}
			if err := j.Close(); err == nil || err.Error() != "closing the journal: bad sector" {
				t.Errorf("error %v", err)
			}
		})
	}
}
