package ui

import (
	"testing"
	"time"
)

// TestSlows shows that the time that is left is estimated by a rate that falls.
func TestSlows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		took  func(done int) time.Duration
		slows bool
		want  time.Duration // that is left of 1,000 after 100
	}{
		{"constant", func(n int) time.Duration { return time.Duration(n) * 10 * time.Millisecond }, false, 9 * time.Second},
		{"constant, although it was to slow down", func(n int) time.Duration { return time.Duration(n) * 10 * time.Millisecond }, true, 9 * time.Second},
		{"slowing", func(n int) time.Duration { return time.Duration(n*n) * time.Millisecond }, true, 990 * time.Second},
		{"slowing, and nobody knows", func(n int) time.Duration { return time.Duration(n*n) * time.Millisecond }, false, 90 * time.Second},
		{"both", func(n int) time.Duration { return time.Duration(n*n+90*n) * time.Millisecond }, true, (1090 - 19) * time.Second},
		{"getting faster", func(n int) time.Duration { return time.Second }, true, 9 * time.Second},
	} {
		p := &Progress{total: 1000, slows: tt.slows}
		for p.done < 100 {
			p.Add(false)
			if last := len(p.marks) - 1; p.marks[last].done == p.done {
				p.marks[last].took = tt.took(p.done)
			}
		}
		if got, known := p.left(tt.took(100)); !known || got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if _, known := (&Progress{total: 5}).left(time.Second); known {
		t.Error("known before the first")
	}
}
