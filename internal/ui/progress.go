package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/cheggaaa/pb/v3"
)

// A Progress tells how far a batch is: at a terminal as a bar, elsewhere as a
// line from time to time. It is not safe for concurrent use.
type Progress struct {
	screen              *screen
	total, done, failed int
	began               time.Time
	bar                 *pb.ProgressBar // nil: lines
	marks               []mark          // at 1, 2, 4, … that were done
	slows               bool            // each takes longer than the one before it
}

// A mark is how many were done after a time.
type mark struct {
	done int
	took time.Duration
}

const (
	barInterval  = 200 * time.Millisecond
	lineInterval = 10 * time.Second
)

// barTemplate is the bar, in the language of its library.
const barTemplate = `{{counters . "%s of %s"}} {{bar . "[" "=" ">" " " "]"}} {{percent . "%.0f%%"}} {{speed . "%s/s" "…/s"}} {{rtime . "%s left" "%s" "… left"}}{{string . "failed"}}`

// slowTemplate is the bar with an estimate of our own: that of the library takes the
// rate for constant.
var slowTemplate = strings.Replace(barTemplate, `{{rtime . "%s left" "%s" "… left"}}`, `{{string . "left"}}`, 1)

// NewProgress returns the progress of a batch of so many, which begins now.
func NewProgress(total int) *Progress { return newProgress(stderr, total) }

func newProgress(s *screen, total int) *Progress {
	p := &Progress{screen: s, total: total, began: time.Now()}
	if !s.plain && s.isTerminal() {
		p.bar = pb.New(total).Set(pb.Static, true).SetTemplateString(barTemplate)
	}
	return p
}

// Interval returns how often to call Show.
func (p *Progress) Interval() time.Duration {
	if p.bar != nil {
		return barInterval
	}
	return lineInterval
}

// Add counts one that is done, and may have failed.
func (p *Progress) Add(failed bool) {
	p.done++
	if p.done&(p.done-1) == 0 {
		p.marks = append(p.marks, mark{p.done, time.Since(p.began)})
	}
	if failed {
		p.failed++
	}
}

// Slows says that each takes longer than the one before it, by about as much each time:
// the time that is left is estimated by that.
func (p *Progress) Slows() {
	p.slows = true
	if p.bar != nil {
		p.bar.SetTemplateString(slowTemplate)
	}
}

// left estimates the time that is left after this one.
func (p *Progress) left(took time.Duration) (left time.Duration, known bool) {
	if p.done == 0 {
		return 0, false
	}
	mean := took.Seconds() / float64(p.done) // of each that is done
	growth := 0.0                            // of the mean, with each
	for _, m := range p.marks {
		if p.slows && m.done <= p.done/2 { // the last of them counts
			growth = max(0, (mean-m.took.Seconds()/float64(m.done))/float64(p.done-m.done))
		}
	}
	rest := float64(p.total - p.done)
	all := (mean + growth*rest) * float64(p.total)
	return time.Duration((all - took.Seconds()) * float64(time.Second)).Round(time.Second), true
}

// Show draws the bar, or prints a line. A batch of one shows nothing.
func (p *Progress) Show() {
	switch {
	case p.total < 2:
	case p.bar != nil:
		p.draw()
	default:
		p.screen.print("", p.line(time.Since(p.began)))
	}
}

// line returns how far the batch is after this time.
func (p *Progress) line(took time.Duration) string {
	left := "time left unknown"
	if d, known := p.left(took); known {
		left = d.String() + " left"
	}
	return fmt.Sprintf("%s of %s done, %s failed, %s/s, %s",
		Number(p.done), Number(p.total), Number(p.failed), PerSecond(p.done, took), left)
}

// draw draws the bar as wide as the terminal is now.
func (p *Progress) draw() {
	width := p.screen.columns()
	if p.failed > 0 {
		p.bar.Set("failed", fmt.Sprintf(" %s failed", Number(p.failed)))
	}
	if d, known := p.left(time.Since(p.began)); p.slows && known {
		p.bar.Set("left", d.String()+" left")
	}
	p.screen.setBottom(p.bar.SetCurrent(int64(p.done)).SetWidth(width-1).String(), width)
}

// End removes the bar. It returns how many were done, and how long that took.
func (p *Progress) End() (done int, took time.Duration) {
	p.screen.setBottom("", 0)
	return p.done, time.Since(p.began)
}

// PerSecond writes a rate for a person: the number without its unit.
func PerSecond(n int, took time.Duration) string {
	rate := float64(n) / max(took.Seconds(), 1e-3)
	if rate < 10 {
		return fmt.Sprintf("%.1f", rate)
	}
	return Number(int(rate))
}
