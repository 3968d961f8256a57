package problem

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestCode(t *testing.T) {
	t.Parallel()
	plain := New("no provisioner").Hint("look")
	crl := WithCode(Incomplete, "crl")
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, 0},
		{"foreign", errors.New("x"), 1},
		{"undecided", plain, 1},
		{"before contact", Default(plain, Usage), 2},
		{"the first default counts", Default(Default(plain, Failed), Usage), 1},
		{"fixed", Default(crl, Failed), 4},
		{"joined with nothing", Default(errors.Join(nil, crl), Failed), 4},
		{"joined with a failure", Default(errors.Join(plain, crl), Failed), 1},
		{"joined with a failure behind it", Default(errors.Join(crl, plain), Failed), 1},
		{"joined, decided afterwards", Default(Default(errors.Join(crl, plain), Failed), Usage), 1},
		{"usage claims more than failed", errors.Join(WithCode(Usage, "u"), WithCode(Failed, "f")), 1},
		{"interrupted", Default(ErrInterrupted, Failed), 130},
		{"interrupted while", Default(Wrap(ErrInterrupted, "reading %s", "x"), Failed), 130},
		{"interrupted, and failed", Default(errors.Join(plain, ErrInterrupted), Failed), 130},
		{"wrapped by others", fmt.Errorf("x: %w", WithCode(Usage, "u")), 2},
		{"wrapped joined", Wrap(errors.Join(crl, WithCode(Failed, "f")), "closing"), 1},
	} {
		if got := Code(tt.err); got != tt.want {
			t.Errorf("%s: %v: %d, want %d", tt.name, tt.err, got, tt.want)
		}
	}
}

func TestHints(t *testing.T) {
	t.Parallel()
	base := New("a").Hint("one")
	two := base.Hint("two")
	if len(base.Hints) != 1 || !slices.Equal(two.Hints, []string{"one", "two"}) {
		t.Errorf("Hint has changed what it was called on: %q, %q", base.Hints, two.Hints)
	}
	for _, err := range []error{two, Wrap(two, "b"), Default(two, Usage), fmt.Errorf("c: %w", Default(two, Usage))} {
		if got := Hints(err); !slices.Equal(got, two.Hints) {
			t.Errorf("%v: hints %q", err, got)
		}
	}
	if got := Wrap(two, "b").Hint("three"); len(two.Hints) != 2 || len(got.Hints) != 3 {
		t.Errorf("Wrap shares hints: %q, %q", two.Hints, got.Hints)
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	a, b, c := New("a").Hint("x"), errors.New("b"), WithCode(Incomplete, "c")
	for _, tt := range []struct {
		err  error
		want []error
	}{
		{a, []error{a}},
		{errors.Join(a, nil, b), []error{a, b}},
		{Default(errors.Join(errors.Join(a, b), c), Failed), []error{a, b, c}},
	} {
		if got := Parts(tt.err); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
	for _, whole := range []error{Wrap(errors.Join(a, b), "both"), fmt.Errorf("%w and %w", a, b)} {
		if got := Parts(whole); len(got) != 1 || got[0] != whole {
			t.Errorf("%v was taken apart: %v", whole, got)
		}
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	attempt := func() (err error) {
		defer Recover(&err)
		var none *Problem
		return New("%v", none.Hints)
	}
	err := attempt()
	var p *Panic
	if !errors.As(err, &p) || len(p.Stack) == 0 || len(Hints(err)) != 1 || Code(Default(err, Usage)) != Failed {
		t.Errorf("error %v, hints %q", err, Hints(err))
	}
}
