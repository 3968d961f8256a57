package main

import (
	"container/heap"
	"context"
	"errors"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/ca/client"
	"github.com/smallstep/certificates/errs"
	"go.step.sm/crypto/randutil"
	"golang.org/x/time/rate"
)

// maxWait is the longest time between two attempts, unless the CA asks for more.
const maxWait = 5 * time.Second

// maxWaiting is how many certificates may wait for another attempt before no
// others are begun.
const maxWaiting = 1000

// maxRefused is how many certificates in a row the CA may refuse before no
// others are tried.
const maxRefused = 10

// A batch is the targets of a run with everything that it takes to revoke them.
// One loop hands them to workers, a worker for each revocation in flight, and
// takes back what became of them: nothing but the attempts themselves is done
// at the same time. What has to wait for another attempt keeps no worker.
type batch struct {
	options *options
	ca      authority
	proof   authorizer
	list    []target
	report  *report

	next     int           // the first target that was not handed out yet
	waiting  waiting       // for another attempt
	inFlight int           // with those that wait for a slot
	slots    chan struct{} // one for each request to the CA
	ended    chan struct{} // closed when no more of them are to be made
	limit    *rate.Limiter // of attempts per second, or nil
	notUntil time.Time     // when the next attempt may begin, once it is reserved
	reserved bool

	allowed float64   // how many attempts may be in flight; what fails in passing lowers it
	cut     time.Time // when it was lowered last
	outage  *outage   // nil while the CA can be reached
	answer  time.Time // when the CA has confirmed a revocation last
	trouble error     // why an attempt since then has failed in passing
	refused int       // how many certificates it has refused since then
	silent  int       // how many attempts have got no definite answer since then
	stopped error     // why no more attempts are made, or nil
}

// A job is a target on its way through the batch.
type job struct {
	*outcome
	first       time.Time // when the first attempt began
	began       time.Time // when the last one did
	due         time.Time // when the next one may begin
	waits       *backoff.ExponentialBackOff
	refusedOnce bool
}

// waiting is a heap of jobs, what is due first on top.
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

// An outage is a time in which the CA cannot be reached at all. One attempt
// after the other finds out when it is over.
type outage struct {
	since, probe time.Time
	waits        *backoff.ExponentialBackOff
}

// run revokes the targets and reports what became of each as it happens. After
// a signal, or when there is no point in going on, no more attempts are made;
// what is in flight may still finish. An error says why targets are left.
func (b *batch) run(ctx context.Context) error {
	inFlight, cancel := afterwards(ctx, grace)
	defer cancel()
	workers, most := b.options.concurrency, b.options.concurrency+b.ahead()
	if !b.options.offline {
		workers = most
	}
	work, results := make(chan *job, most), make(chan *job, most) // with room for all
	defer close(work)
	b.slots, b.ended = make(chan struct{}, b.options.concurrency), make(chan struct{})
	for range workers {
		go func() {
			for j := range work {
				// Where nothing was sent any more, the error before says more.
				if err := b.send(inFlight, j.outcome); !errors.Is(err, errNotBegun) || !j.unanswered {
					j.err = err
				}
				results <- j
			}
		}()
	}
	b.allowed, b.answer = float64(b.options.concurrency), time.Now()
	if b.options.rate > 0 && !b.options.dryRun {
		// A hundredth of a second may be caught up on.
		b.limit = rate.NewLimiter(rate.Limit(b.options.rate), max(1, b.options.rate/100))
	}
	defer b.tune()()
	ticks := time.NewTicker(b.report.progress.interval())
	defer ticks.Stop()
	interrupted := ctx.Done()
	for {
		now := time.Now()
		if limit := b.options.retryFor; b.trouble != nil && limit > 0 && now.Sub(b.answer) > limit && len(b.list) > 1 {
			b.stop(b.trouble) // no success for so long
		}
		j, wait := b.pick(now)
		if j != nil {
			b.handOut(j)
			work <- j
			continue
		}
		var alarm <-chan time.Time
		if wait > 0 {
			alarm = time.After(wait)
		} else if b.inFlight == 0 {
			return b.end(ctx)
		}
		select {
		case j := <-results:
			b.settle(ctx, j, time.Now())
			for len(results) > 0 { // without a look at all else after each
				b.settle(ctx, <-results, time.Now())
			}
		case <-alarm:
		case <-ticks.C:
			b.report.progress.show()
		case <-interrupted:
			interrupted = nil
			b.stop(errInterrupted)
			switch n := len(b.slots); {
			case n == 1:
				sayMarked(warn, "interrupted: waiting for the answer for at most %s", grace)
			case n > 1:
				sayMarked(warn, "interrupted: waiting for %d answers for at most %s", n, grace)
			}
		}
	}
}

// tune fits Go's runtime to a batch. Offline a thread that waits for the disk
// keeps its processor, as Go sees it: with twice as many the others are busy
// meanwhile. Of many, huge pages save most of the time that new memory takes.
// Online there is little in memory, so the collector need not run all the time;
// and of a CA on the same host this process would take the time that it waits for
// it: half of the processors is more than enough to keep the CA busy.
func (b *batch) tune() (restore func()) {
	processors := runtime.GOMAXPROCS(0)
	if b.options.offline {
		if b.report.many() {
			preferHugePages()
		}
		runtime.GOMAXPROCS(2 * processors)
		return func() { runtime.GOMAXPROCS(processors) }
	}
	percent := debug.SetGCPercent(400)
	runtime.GOMAXPROCS(max(1, processors/2))
	return func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(processors)
	}
}

// pick returns the job whose turn it is, or how long to wait until there may be
// one. Neither means that only an answer can change that, if one is to come.
func (b *batch) pick(now time.Time) (j *job, wait time.Duration) {
	switch {
	case b.stopped != nil || b.inFlight >= b.most():
		return nil, 0
	case b.outage != nil && b.inFlight > 0:
		return nil, 0
	case b.outage != nil && now.Before(b.outage.probe):
		return nil, b.outage.probe.Sub(now)
	}
	for b.next < len(b.list) && b.list[b.next].done {
		b.next++
	}
	switch {
	case len(b.waiting) > 0 && (!now.Before(b.waiting[0].due) || b.outage != nil):
		j = b.waiting[0]
	case b.next < len(b.list) && len(b.waiting) < maxWaiting:
		j = &job{outcome: &outcome{target: &b.list[b.next]}}
	case len(b.waiting) > 0:
		return nil, b.waiting[0].due.Sub(now)
	default:
		return nil, 0
	}
	if b.limit != nil && !b.reserved {
		b.notUntil, b.reserved = now.Add(b.limit.ReserveN(now, 1).DelayFrom(now)), true
	}
	if now.Before(b.notUntil) {
		return nil, b.notUntil.Sub(now)
	}
	return j, 0
}

// most is how many jobs may be with the workers.
func (b *batch) most() int {
	if n := int(b.allowed); n < b.options.concurrency {
		return n
	}
	return b.options.concurrency + b.ahead()
}

// ahead is how many jobs may be waiting for a slot. Online each is with a worker
// that signs its token meanwhile: a CA need not wait for that. Offline that time
// is the authority's own, and a worker that is done just finds the next job.
func (b *batch) ahead() int { return b.options.concurrency / 4 }

// handOut notes that the job that pick has returned goes to a worker.
func (b *batch) handOut(j *job) {
	now := time.Now()
	if j.first.IsZero() {
		j.first = now
		b.next++
	} else {
		heap.Pop(&b.waiting)
	}
	j.began, b.reserved = now, false
	b.inFlight++
}

// settle decides what follows from an attempt. Once one has gone without an
// answer, only a later one can tell whether it went through.
func (b *batch) settle(ctx context.Context, j *job, now time.Time) {
	b.inFlight--
	a, _ := asAnswer(j.err)
	status, code := statusOf(j.err), httpStatus(j.err)
	if status == statusUnknown {
		j.unanswered = true
		j.crlStale = j.crlStale || code == http.StatusInternalServerError
	}
	if errors.As(j.err, new(notSent)) {
		j.attempts--
	}
	final := !b.proof.Repeatable() || ctx.Err() != nil || b.stopped != nil
	switch {
	case status == statusNotAttempted && !final:
		b.wait(j, now)
	case (status == statusUnknown || code == http.StatusTooManyRequests) && !final:
		b.again(j, now, a)
	case code == http.StatusUnauthorized && !j.refusedOnce && !final:
		j.refusedOnce, j.due = true, now // the CA may have restarted after the token was made
		b.report.sayRetry(j, 0)
		heap.Push(&b.waiting, j)
	case status == statusFailed:
		b.finish(j)
		// What else is refused may be about this one certificate.
		perhaps := code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusUnauthorized
		if b.refused++; !perhaps || b.refused == maxRefused {
			b.stop(j.err)
		}
	default:
		if status != statusNotAttempted && status != statusUnknown {
			b.answered(j, now)
		}
		b.finish(j)
	}
}

// again puts a job back for another attempt after a while, with exponential
// backoff and jitter, or as long as an answer says; but none that would begin
// later than --retry-for allows.
func (b *batch) again(j *job, now time.Time, a *answer) {
	if b.outage != nil && !j.began.Before(b.outage.probe) {
		b.endOutage(now) // it answers something
	}
	j.refusedOnce = false
	if j.began.After(b.cut) {
		b.allowed, b.cut = max(1, b.allowed/2), now
	}
	b.trouble = j.err
	if j.waits == nil {
		j.waits = newWaits()
	}
	var wait time.Duration
	if a != nil && a.retryAfter > 0 {
		wait = a.retryAfter
	} else {
		wait = j.waits.NextBackOff()
	}
	limit := b.options.retryFor
	if b.silent++; limit == 0 && b.silent == maxRefused && len(b.list) > 1 {
		b.stop(j.err)
	}
	if now.Add(wait).Sub(j.first) > limit {
		b.finish(j)
		return
	}
	b.report.sayRetry(j, wait)
	j.due = now.Add(wait)
	heap.Push(&b.waiting, j)
}

// wait puts a job back until the CA can be reached again, which it is given
// --retry-for for.
func (b *batch) wait(j *job, now time.Time) {
	j.due, j.refusedOnce = now, false
	heap.Push(&b.waiting, j)
	if b.outage == nil {
		b.outage = &outage{since: j.began, waits: newWaits()}
	} else if j.began.Before(b.outage.probe) {
		return // one that was in flight when it began
	}
	wait := b.outage.waits.NextBackOff()
	if b.outage.probe = now.Add(wait); b.outage.probe.Sub(b.outage.since) > b.options.retryFor {
		b.stop(j.err)
		return
	}
	sayMarked(warn, "%v; trying again in %s", j.err, wait.Round(time.Millisecond))
}

// answered notes that the CA is there and works. An answer to what was sent
// before an outage does not end it.
func (b *batch) answered(j *job, now time.Time) {
	b.answer, b.trouble, b.refused, b.silent = now, nil, 0, 0
	b.allowed = min(b.allowed+1/b.allowed, float64(b.options.concurrency))
	if b.outage != nil && !j.began.Before(b.outage.probe) {
		b.endOutage(now)
	}
}

// endOutage has all workers go on.
func (b *batch) endOutage(now time.Time) {
	lasted := now.Sub(b.outage.since)
	for _, j := range b.waiting {
		j.first = j.first.Add(lasted) // it could not be tried meanwhile
	}
	sayMarked(good, "The CA can be reached again")
	b.outage = nil
}

func newWaits() *backoff.ExponentialBackOff {
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = maxWait
	return waits
}

// stop ends the run: what is in flight may finish.
func (b *batch) stop(err error) {
	if b.stopped == nil {
		b.stopped = err
		close(b.ended)
	}
}

// finish reports the outcome of a job.
func (b *batch) finish(j *job) {
	switch j.status = statusOf(j.err); {
	case j.status == statusPlanned:
		j.attempts, j.requestID = 0, ""
	case j.unanswered && !j.done():
		j.status = statusUnknown
	case j.attempts == 0:
		j.requestID = ""
	}
	if errors.Is(j.err, errNotBegun) {
		j.err = b.whyLeft()
	}
	if err := b.report.arrived(j.outcome); err != nil {
		b.stop(err)
	}
}

// whyLeft is why a target is left; that the run was interrupted goes without
// saying.
func (b *batch) whyLeft() error {
	if errors.Is(b.stopped, errInterrupted) {
		return nil
	}
	return b.stopped
}

// end reports what is left when no more attempts are made, and says why.
func (b *batch) end(ctx context.Context) error {
	for _, j := range b.waiting {
		if j.refusedOnce && !j.unanswered { // and not asked again with a fresh token
			j.err = errNotBegun
		}
		b.finish(j)
	}
	for i := b.next; i < len(b.list); i++ {
		if b.list[i].done {
			continue
		}
		o := &outcome{target: &b.list[i], status: statusNotAttempted, err: b.whyLeft()}
		_ = b.report.arrived(o) // an error has stopped the run before
	}
	b.report.progress.end()
	left := b.report.counts[statusNotAttempted]
	switch cause := b.stopped; {
	case errors.As(cause, new(*journalError)), cause != nil && ctx.Err() != nil:
		return cause
	case left == 0 || len(b.list) == 1: // all is said
		return nil
	case errors.As(cause, new(notSent)):
		return passOn(cause, exitFailed, "the run has stopped with "+count(left, "certificate", "certificates")+" left").hint(againHint)
	default: // its hints were given with the outcome
		return failf("the run has stopped with %s left: %w", count(left, "certificate", "certificates"), cause).hint(againHint)
	}
}

const againHint = "run it again once that is mended, with the same --journal if it has one: what is revoked already is no failure"

// send makes one attempt.
func (b *batch) send(ctx context.Context, o *outcome) error {
	serial := o.target.serial.String()
	token, err := b.proof.Token(serial)
	if err != nil {
		return err
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-b.ended:
	}
	select {
	case <-b.ended:
		return errNotBegun
	default:
	}
	// With an ID of our own, an answer that is lost can be found in the CA's log.
	if o.requestID, err = randutil.UUIDv4(); err != nil {
		return err
	}
	o.attempts++
	return b.ca.Revoke(client.NewRequestIDContext(ctx, o.requestID), &api.RevokeRequest{
		Serial: serial, OTT: token, Reason: b.options.reason, ReasonCode: b.options.reasonCode.code, Passive: true,
	})
}

// errNotBegun is the error of an attempt that the end of the run has prevented.
var errNotBegun = errors.New("not attempted")

// statusOf tells what the error of an attempt says about the certificate.
func statusOf(err error) status {
	switch {
	case err == nil:
		return statusRevoked
	case errors.Is(err, errAlreadyRevoked):
		return statusAlreadyRevoked
	case errors.Is(err, errPlanned):
		return statusPlanned
	case errors.As(err, new(noAnswer)):
		return statusUnknown
	case errors.As(err, new(notSent)), errors.Is(err, errNotBegun):
		return statusNotAttempted
	}
	return statusFailed
}

// httpStatus is the HTTP status of a refusal, of a CA or of an authority in this
// process; 0 is none.
func httpStatus(err error) int {
	if a, ok := asAnswer(err); ok {
		return a.status
	}
	var own *errs.Error
	if errors.As(err, &own) {
		return own.Status
	}
	return 0
}

// retry repeats an attempt while it returns an error, which is the reason to:
// with exponential backoff and jitter or, where an answer says how long to wait,
// after that. What would begin later than limit does not.
func retry(ctx context.Context, limit time.Duration, attempt func() error, notify func(wait time.Duration)) {
	retries := backoff.WithMaxElapsedTime(limit)
	if limit == 0 {
		retries = backoff.WithMaxTries(1)
	}
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		err := attempt()
		if a, ok := asAnswer(err); ok && a.retryAfter > 0 {
			err = &backoff.RetryAfterError{Duration: a.retryAfter}
		}
		return struct{}{}, err
	}, retries, backoff.WithBackOff(newWaits()), backoff.WithNotify(func(_ error, wait time.Duration) {
		notify(wait.Round(time.Millisecond))
	}))
}

// afterwards is ctx, ended a while later.
func afterwards(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(while, cancel) })
	return later, func() { stop(); cancel() }
}

// A dryRun is an authority that does everything but revoke.
type dryRun struct{ authority }

var errPlanned = errors.New("planned")

// Open also makes sure that the CA is there, where nothing else has.
func (d dryRun) Open(ctx context.Context, list []target) error {
	if _, err := d.authority.Issuers(ctx); err != nil {
		return err
	}
	return d.authority.Open(ctx, list)
}

func (dryRun) Revoke(context.Context, *api.RevokeRequest) error { return errPlanned }
