package database

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// mapped returns what Map yields, and the errors.
func mapped[T any](ctx context.Context, s *Snapshot, look func(*Issued) (T, bool)) (all []T, errs []error) {
	for v, err := range Map(ctx, s, look) {
		if err != nil {
			errs = append(errs, err)
		} else {
			all = append(all, v)
		}
	}
	return all, errs
}

// TestMapOrder keeps some of an odd number of certificates, in order.
func TestMapOrder(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		const n = 1999
		var want []string
		for i := range n {
			if serial, _ := certificate(i); strings.HasSuffix(serial, "7") {
				want = append(want, serial)
			}
		}
		slices.Sort(want) // all are of the same length
		s, err := Read(t.Context(), filled(t, kind, n), stopped)
		if err != nil {
			t.Fatal(err)
		}
		var looked atomic.Int64
		got, errs := mapped(t.Context(), s, func(i *Issued) (string, bool) {
			looked.Add(1)
			return i.Serial, strings.HasSuffix(i.Serial, "7")
		})
		if len(errs) > 0 || !slices.Equal(got, want) || looked.Load() != n {
			t.Errorf("%s: %d of %d, want %d, %v", kind, len(got), looked.Load(), len(want), errs)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestMapEnds leaves the loop in every way that there is, and then closes.
func TestMapEnds(t *testing.T) {
	t.Parallel()
	const n = 5000
	cfg := filled(t, nosql.BBoltDriver, n)
	s, err := Read(t.Context(), cfg, stopped)
	if err != nil {
		t.Fatal(err)
	}
	var running, looked atomic.Int64
	count := func(*Issued) (int, bool) {
		running.Add(1)
		defer running.Add(-1)
		looked.Add(1)
		return 0, true
	}
	for range Map(t.Context(), s, count) {
		break
	}
	if running.Load() != 0 || looked.Load() == n {
		t.Errorf("break: %d running, %d seen", running.Load(), looked.Load())
	}

	_, errs := mapped(t.Context(), s, func(i *Issued) (string, bool) {
		if strings.HasSuffix(i.Serial, "77") {
			panic("seventy-seven")
		}
		return i.Serial, true
	})
	var panicked *problem.Panic
	if len(errs) != 1 || !errors.As(errs[0], &panicked) || !strings.Contains(errs[0].Error(), "seventy-seven") {
		t.Errorf("panic: %v", errs)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var once atomic.Bool
	all, errs := mapped(ctx, s, func(i *Issued) (string, bool) {
		if once.CompareAndSwap(false, true) {
			cancel()
		}
		return i.Serial, true
	})
	if len(errs) != 1 || !errors.Is(errs[0], problem.ErrInterrupted) || len(all) == n {
		t.Errorf("interrupted: %d, %v", len(all), errs)
	}
	if all, errs := mapped(ctx, s, count); len(errs) != 1 || !errors.Is(errs[0], problem.ErrInterrupted) || len(all) > 0 {
		t.Errorf("interrupted before: %d, %v", len(all), errs)
	}

	if all, errs := mapped(t.Context(), s, count); len(all) != n || len(errs) > 0 {
		t.Errorf("afterwards: %d, %v", len(all), errs)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestMapInterrupted shows that Map returns at once when ctx ends, although look
// does not.
func TestMapInterrupted(t *testing.T) {
	t.Parallel()
	s, err := Read(t.Context(), filled(t, nosql.BBoltDriver, 10), stopped)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	_, errs := mapped(ctx, s, func(*Issued) (int, bool) {
		cancel()
		<-hang
		return 0, true
	})
	if len(errs) != 1 || !errors.Is(errs[0], problem.ErrInterrupted) {
		t.Errorf("%v", errs)
	}
	close(hang)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
