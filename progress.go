package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// A progress tells how far a batch is: at a terminal as a bar, elsewhere as a
// line from time to time.
type progress struct {
	total, done, failed int
	began, ended        time.Time
	bar                 *pb.ProgressBar // nil for lines
}

// How often the bar is drawn, and a line printed.
const (
	barInterval  = 200 * time.Millisecond
	lineInterval = 10 * time.Second
)

// barTemplate is the bar, in the language of its library.
const barTemplate = `{{counters . "%s of %s"}} {{bar . "[" "=" ">" " " "]"}} {{percent . "%.0f%%"}} {{speed . "%s/s" "…/s"}} {{rtime . "%s left" "%s" "… left"}}{{string . "failed"}}`

// newProgress begins to tell of a batch with this many targets.
func newProgress(total int) *progress {
	p := &progress{total: total, began: time.Now()}
	if !plain && term.IsTerminal(int(os.Stderr.Fd())) {
		p.bar = pb.New(total).Set(pb.Static, true).SetTemplateString(barTemplate)
	}
	return p
}

func (p *progress) interval() time.Duration {
	if p.bar != nil {
		return barInterval
	}
	return lineInterval
}

// add counts an outcome.
func (p *progress) add(o *outcome) {
	switch o.status {
	case statusNotAttempted:
		return
	case statusFailed, statusUnknown:
		p.failed++
	}
	p.done++
}

// show draws the bar, or prints a line.
func (p *progress) show() {
	if p.total < 2 {
		return
	}
	if p.bar != nil {
		p.draw()
		return
	}
	elapsed := time.Since(p.began)
	left := "time left unknown"
	if p.done > 0 {
		left = (elapsed / time.Duration(p.done) * time.Duration(p.total-p.done)).Round(time.Second).String() + " left"
	}
	say("%s of %s done, %s failed, %s/s, %s", humanize.Comma(int64(p.done)), humanize.Comma(int64(p.total)),
		humanize.Comma(int64(p.failed)), perSecond(p.done, elapsed), left)
}

// draw draws the bar as wide as the terminal is now.
func (p *progress) draw() {
	width := terminalWidth()
	if p.failed > 0 {
		p.bar.Set("failed", fmt.Sprintf(" %s failed", humanize.Comma(int64(p.failed))))
	}
	bottom.set(p.bar.SetCurrent(int64(p.done)).SetWidth(width-1).String(), width)
}

// terminalWidth is how wide the terminal is, in columns.
func terminalWidth() int {
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || width < 2 {
		return 80
	}
	return width
}

// end takes the bar away.
func (p *progress) end() {
	p.ended = time.Now()
	bottom.set("", 0)
}

// elapsed is how long the batch has taken.
func (p *progress) elapsed() time.Duration { return p.ended.Sub(p.began) }

// bottom is what the terminal's last line shows while other lines appear above.
// The cursor rests at the beginning of that line: if the terminal becomes so
// narrow that the line is wrapped, the cursor still stands before all of it.
var bottom bottomLine

type bottomLine struct {
	sync.Mutex
	text  string
	width int // of the terminal that it was made for
}

// wipe clears the screen from the beginning of the cursor's line.
const wipe = "\r\x1b[J"

// set changes the last line; nothing takes it away.
func (l *bottomLine) set(text string, width int) {
	l.Lock()
	defer l.Unlock()
	var before string
	if l.text != "" {
		before = wipe
	}
	if l.text, l.width = text, width; text != "" {
		text += "\r"
	}
	fmt.Fprint(os.Stderr, before+text)
}

// leave is what takes the last line away, without waiting for anybody.
func (l *bottomLine) leave() string {
	if l.TryLock() {
		defer l.Unlock()
		if l.text == "" {
			return ""
		}
		return wipe
	}
	return ""
}

// beside prints something else than the last line, in whole lines, above it. In
// a terminal that has become narrower the last line is missing until it is
// changed: it would be wrapped.
func beside(print func() error) error {
	bottom.Lock()
	defer bottom.Unlock()
	if bottom.text == "" {
		return print()
	}
	fmt.Fprint(os.Stderr, wipe)
	err := print()
	if terminalWidth() >= bottom.width {
		fmt.Fprint(os.Stderr, bottom.text+"\r")
	}
	return err
}
