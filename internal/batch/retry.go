package batch

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// maxWait is the longest time between two attempts, unless the CA asks for more.
const maxWait = 5 * time.Second

// maxWaiting is how many certificates may wait for another attempt before no
// others begin.
const maxWaiting = 1000

// maxRefusals is how many certificates in a row the CA may refuse before no
// others are tried.
const maxRefusals = 10

// waits hands out the times between attempts: exponential backoff with jitter.
type waits struct{ *backoff.ExponentialBackOff }

func (w *waits) next() time.Duration {
	if w.ExponentialBackOff == nil {
		w.ExponentialBackOff = backoff.NewExponentialBackOff()
		w.MaxInterval = maxWait
	}
	return w.NextBackOff()
}

// waiting is a heap of jobs. The one that is due first is on top.
type waiting []*job

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].due.Before(w[j].due) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(j any)        { *w = append(*w, j.(*job)) }
func (w *waiting) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

func (w *waiting) add(j *job, due time.Time) {
	j.due = due
	heap.Push(w, j)
}

func (w *waiting) pop() { heap.Pop(w) }

// An outage is a time in which the CA cannot be reached at all. One attempt
// after the other finds out when it is over.
type outage struct {
	since, probe time.Time
	waits        waits
}

// settle decides what follows from an attempt.
func (e *engine) settle(ctx context.Context, j *job) {
	e.inFlight--
	now := time.Now()
	if j.Status == revocation.Unknown {
		j.Unanswered = true
	}
	mayRetry := e.proof.Repeatable() && ctx.Err() == nil && !e.stopped
	switch {
	case !j.begun: // the run has ended before
		e.finish(j)
	case j.Status.Done() || j.Status == revocation.Planned:
		e.succeeded(j, now)
		e.finish(j)
	case j.Next == revocation.Reach && mayRetry:
		e.awaitCA(j, now)
	case j.Next == revocation.Again && mayRetry:
		e.again(j, now)
	case j.Next == revocation.FreshToken && mayRetry && !j.askedAfresh:
		j.askedAfresh = true // the CA may have restarted after the token was made
		e.watcher.Retrying(&j.Outcome, 0)
		e.waiting.add(j, now)
	case j.Status == revocation.Failed:
		answer := j.Answer
		e.finish(j)
		e.refused(answer)
	case j.Next == revocation.Nothing:
		e.finish(j)
		e.stop(j.Answer)
	default:
		e.finish(j)
	}
}

// succeeded notes that the CA is there and works. An answer to a request from
// before an outage does not end it.
func (e *engine) succeeded(j *job, now time.Time) {
	e.lastSuccess, e.trouble, e.refusals, e.unanswered = now, revocation.Answer{}, 0, 0
	e.window = min(e.window+1/e.window, float64(e.config.Concurrency))
	e.heardFrom(j, now)
}

// refused ends the run, unless the refusal may be about one certificate alone. One
// that certainly is does not count.
func (e *engine) refused(a revocation.Answer) {
	if a.Next == revocation.Alone {
		return
	}
	e.refusals++
	mayBeAlone := a.Next == revocation.Others || a.Next == revocation.Again
	if !mayBeAlone || e.refusals == maxRefusals {
		e.stop(a)
	}
}

// untilNext returns how long to wait for the next attempt: as long as the backoff
// says, but the last attempt begins when the time that is left ends; or as long as
// the CA asks for. It is negative if no attempt may begin any more.
func untilNext(backoff, asked, left time.Duration) time.Duration {
	switch {
	case left <= 0 || asked > left:
		return -1
	case asked > 0:
		return asked
	}
	return min(backoff, left)
}

// again puts a job back for another attempt, unless RetryFor is over.
func (e *engine) again(j *job, now time.Time) {
	e.heardFrom(j, now)
	j.askedAfresh = false
	if j.began.After(e.windowCut) {
		e.window, e.windowCut = max(1, e.window/2), now
	}
	e.trouble = j.Answer
	limit := e.config.RetryFor
	if e.unanswered++; limit == 0 && e.unanswered == maxRefusals && len(e.list) > 1 {
		e.stop(j.Answer)
	}
	wait := untilNext(j.waits.next(), j.After, j.first.Add(limit).Sub(now))
	if wait < 0 {
		e.finish(j)
		return
	}
	e.watcher.Retrying(&j.Outcome, wait)
	e.waiting.add(j, now.Add(wait))
}

// awaitCA puts a job back until the CA can be reached again, which may take
// RetryFor.
func (e *engine) awaitCA(j *job, now time.Time) {
	j.askedAfresh = false
	e.waiting.add(j, now)
	if e.outage == nil {
		e.outage = &outage{since: j.began}
	} else if j.began.Before(e.outage.probe) {
		return // it was in flight when the outage began
	}
	wait := untilNext(e.outage.waits.next(), 0, e.outage.since.Add(e.config.RetryFor).Sub(now))
	if wait < 0 {
		e.outage.probe = now
		e.stop(j.Answer)
		return
	}
	e.outage.probe = now.Add(wait)
	e.watcher.Unreachable(j.Err, wait)
}

// heardFrom ends an outage, if the attempt that was answered began after it.
func (e *engine) heardFrom(j *job, now time.Time) {
	if e.outage == nil || j.began.Before(e.outage.probe) {
		return
	}
	lasted := now.Sub(e.outage.since)
	for _, j := range slices.Concat(e.waiting, waiting{j}) {
		j.first = j.first.Add(lasted) // it could not be tried meanwhile
	}
	e.lastSuccess = e.lastSuccess.Add(lasted)
	e.outage = nil
	e.watcher.Reachable()
}
