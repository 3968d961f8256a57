// Package batch revokes many certificates: workers, retries, and when to stop.
package batch

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// Grace is how long requests in flight may take to finish after a signal.
const Grace = 4 * time.Second

// Config is how hard to push.
type Config struct {
	Concurrency int           // requests in flight at most
	Rate        int           // attempts that begin per second at most; 0 is no bound
	RetryFor    time.Duration // how long to retry one certificate; 0 is not at all
	Interval    time.Duration // between two calls of Watcher.Tick
	InProcess   bool          // the CA is this process, which signs no token while it waits
	Reason      revocation.Reason
}

// A CA revokes one certificate. Several requests may be in flight.
type CA interface {
	Revoke(context.Context, revocation.Request) revocation.Answer
}

// A Proof authorizes attempts.
type Proof interface {
	// Token returns a one-time token for one attempt. It is empty where the
	// connection itself is the proof.
	Token(target.Serial) (string, error)
	// Repeatable tells whether another attempt can get a proof, too.
	Repeatable() bool
}

// A Watcher is told what happens, one thing at a time.
type Watcher interface {
	// Ended takes the outcome of each target. An error ends the run.
	Ended(*revocation.Outcome) error
	// Retrying says that a certificate gets another attempt after a wait.
	Retrying(o *revocation.Outcome, wait time.Duration)
	// Unreachable says why the CA cannot be reached, and when it is asked again.
	Unreachable(err error, wait time.Duration)
	// Reachable says that the CA can be reached again.
	Reachable()
	// Interrupted says that a signal has come, and how many requests may still be
	// answered.
	Interrupted(inFlight int)
	// Tick is called from time to time.
	Tick()
}

// Stopped is the error of a run that has ended before the turn of some targets.
type Stopped struct {
	Left int // targets that were not attempted
	Err  error
}

func (s *Stopped) Error() string { return s.Err.Error() }
func (s *Stopped) Unwrap() error { return s.Err }

// Run revokes the targets of a list that are not done, and tells the watcher
// what becomes of each as it happens. After a signal, or when no attempt can
// succeed, no more attempts begin; requests in flight may still finish. The
// error says why targets are left: it is problem.ErrInterrupted, an error of the
// watcher, or a Stopped.
func Run(ctx context.Context, c Config, ca CA, proof Proof, list *target.List, w Watcher) error {
	e := &engine{
		config: c, ca: ca, proof: proof, list: list.All, watcher: w,
		slots: make(chan struct{}, c.Concurrency), ended: make(chan struct{}),
		window: float64(c.Concurrency), lastSuccess: time.Now(),
	}
	if c.Rate > 0 {
		// A hundredth of a second may be caught up on.
		e.limit = rate.NewLimiter(rate.Limit(c.Rate), max(1, c.Rate/100))
	}
	inFlight, cancel := afterwards(ctx, Grace)
	defer cancel()
	e.start(inFlight)
	defer close(e.work)
	if err := e.guardedLoop(ctx); err != nil {
		e.fail(err)
		_ = e.guardedLoop(ctx) // for what is still in flight
	}
	return e.conclude(ctx)
}

// An engine hands targets to workers and takes back how each attempt has ended.
// One loop makes all decisions, so that only the attempts themselves run
// concurrently. A certificate that waits for another attempt occupies no worker.
type engine struct {
	config  Config
	ca      CA
	proof   Proof
	list    []target.Target
	watcher Watcher

	next     int           // the first target that was not handed out yet
	waiting  waiting       // jobs that wait for another attempt
	inFlight int           // jobs that are with workers
	left     int           // targets that were not attempted
	work     chan *job     // to the workers
	results  chan *job     // from the workers
	slots    chan struct{} // holds one element for each request in flight
	ended    chan struct{} // closed when no more requests are to begin
	limit    *rate.Limiter // of attempts per second, or nil
	notUntil time.Time     // when the next attempt may begin, once it is reserved
	reserved bool

	window       float64           // how many attempts may be in flight; transient failures lower it
	windowCut    time.Time         // when it was lowered last
	outage       *outage           // nil while the CA can be reached
	lastSuccess  time.Time         // when the CA has confirmed a revocation last, or the run began
	trouble      revocation.Answer // a transient failure since then, if its Err is not nil
	refusals     int               // certificates that were refused since then
	unanswered   int               // attempts without a definite answer since then
	stopped      bool              // no more attempts begin
	stoppedBy    revocation.Answer // why
	watcherError error             // why, if the watcher has failed
}

// A job is a target on its way through the engine.
type job struct {
	revocation.Outcome
	begun       bool      // the last attempt has reached the CA's code, or failed before that
	first       time.Time // when the first attempt began
	began       time.Time // when the last one did
	due         time.Time // when the next one may begin
	waits       waits
	askedAfresh bool // a 401 was answered with a fresh token
}

// start starts the workers. Online, workers beyond the slots sign tokens while
// they wait for one.
func (e *engine) start(ctx context.Context) {
	most := e.config.Concurrency + e.prefetch()
	e.work, e.results = make(chan *job, most), make(chan *job, most) // with room for all
	workers := most
	if e.config.InProcess {
		workers = e.config.Concurrency
	}
	for range workers {
		go func() {
			for j := range e.work {
				if err := e.attempt(ctx, j); err != nil {
					j.begun, j.Answer = true, revocation.Answer{Status: revocation.Unknown, Err: err}
				}
				e.results <- j
			}
		}()
	}
}

// attempt makes one attempt. If the run ends before it begins, the job keeps the
// answer to the attempt before. An error stands for a panic.
func (e *engine) attempt(ctx context.Context, j *job) (panicked error) {
	defer problem.Recover(&panicked)
	token, err := e.proof.Token(j.Target.Serial)
	if err != nil {
		j.begun, j.Answer = true, revocation.Answer{Status: revocation.Failed, Err: err}
		return nil
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-e.ended:
	}
	select {
	case <-e.ended:
		j.begun = false
		return nil
	default:
	}
	stale := j.StaleCRL
	j.begun, j.Answer = true, e.ca.Revoke(ctx, revocation.Request{Serial: j.Target.Serial, Token: token, Reason: e.config.Reason})
	j.StaleCRL = j.StaleCRL || stale
	if j.Next != revocation.Reach && j.Status != revocation.Planned {
		j.Attempts += max(1, j.Sent)
	}
	return nil
}

// guardedLoop is loop. Its error stands for a panic, most likely of the watcher.
func (e *engine) guardedLoop(ctx context.Context) (panicked error) {
	defer problem.Recover(&panicked)
	e.loop(ctx)
	return nil
}

// loop hands out targets and takes results until nothing is in flight and
// nothing more is to begin.
func (e *engine) loop(ctx context.Context) {
	ticks := time.NewTicker(e.config.Interval)
	defer ticks.Stop()
	interrupted := ctx.Done()
	for {
		e.stopWithoutSuccess()
		j, wait := e.pick(time.Now())
		if j != nil {
			e.handOut(j)
			e.work <- j
			continue
		}
		var alarm <-chan time.Time
		if wait > 0 {
			alarm = time.After(wait)
		} else if e.inFlight == 0 {
			return
		}
		select {
		case j := <-e.results:
			e.settle(ctx, j)
			for len(e.results) > 0 { // without a look at everything else after each
				e.settle(ctx, <-e.results)
			}
		case <-alarm:
		case <-ticks.C:
			e.watcher.Tick()
		case <-interrupted:
			interrupted = nil
			e.stop(revocation.Answer{Err: problem.ErrInterrupted})
			e.watcher.Interrupted(len(e.slots))
		}
	}
}

// stopWithoutSuccess ends a run in which nothing has succeeded for RetryFor.
func (e *engine) stopWithoutSuccess() {
	limit := e.config.RetryFor
	if e.trouble.Err != nil && limit > 0 && time.Since(e.lastSuccess) > limit && len(e.list) > 1 {
		e.stop(e.trouble)
	}
}

// pick returns the job whose turn it is, or how long to wait until there may be
// one. If it returns neither, nothing can begin until an answer arrives.
func (e *engine) pick(now time.Time) (j *job, wait time.Duration) {
	switch {
	case e.stopped || e.inFlight >= e.most():
		return nil, 0
	case e.outage != nil && e.inFlight > 0:
		return nil, 0
	case e.outage != nil && now.Before(e.outage.probe):
		return nil, e.outage.probe.Sub(now)
	}
	for e.next < len(e.list) && e.list[e.next].Done {
		e.next++
	}
	switch {
	case len(e.waiting) > 0 && (!now.Before(e.waiting[0].due) || e.outage != nil):
		j = e.waiting[0]
	case e.next < len(e.list) && len(e.waiting) < maxWaiting:
		j = &job{Outcome: revocation.Outcome{Target: &e.list[e.next]}}
	case len(e.waiting) > 0:
		return nil, e.waiting[0].due.Sub(now)
	default:
		return nil, 0
	}
	if e.limit != nil && !e.reserved {
		e.notUntil, e.reserved = now.Add(e.limit.ReserveN(now, 1).DelayFrom(now)), true
	}
	if now.Before(e.notUntil) {
		return nil, e.notUntil.Sub(now)
	}
	return j, 0
}

// most is how many jobs may be with the workers.
func (e *engine) most() int {
	if n := int(e.window); n < e.config.Concurrency {
		return n
	}
	return e.config.Concurrency + e.prefetch()
}

// prefetch is how many jobs may wait for a slot. Online a worker signs the token
// of such a job meanwhile, so that the CA need not wait for that. In process,
// signing takes the authority's own time; the jobs only wait in a queue, where a
// worker finds the next one at once. With a bound on the rate no job waits: its
// request must begin when it is handed out.
func (e *engine) prefetch() int {
	if e.config.Rate > 0 {
		return 0
	}
	return e.config.Concurrency / 4
}

// handOut notes that the job that pick has returned goes to a worker.
func (e *engine) handOut(j *job) {
	now := time.Now()
	if j.first.IsZero() {
		j.first = now
		e.next++
	} else {
		e.waiting.pop()
	}
	j.began, e.reserved = now, false
	e.inFlight++
}

// stop ends the run: requests in flight may finish.
func (e *engine) stop(why revocation.Answer) {
	if !e.stopped {
		e.stopped, e.stoppedBy = true, why
		close(e.ended)
	}
}

// notAttempted is the answer of a target that is left. It need not say that the
// run was interrupted.
func (e *engine) notAttempted() revocation.Answer {
	a := revocation.Answer{Status: revocation.NotAttempted, Err: e.stoppedBy.Err, Cause: e.stoppedBy.Cause, Next: e.stoppedBy.Next}
	if e.stoppedBy.Err == problem.ErrInterrupted {
		a.Err = nil
	}
	return a
}

// finish hands the outcome of a job to the watcher.
func (e *engine) finish(j *job) {
	if !j.begun && !j.Unanswered {
		j.Answer = e.notAttempted()
	}
	// After an unanswered attempt only a later answer tells whether the
	// revocation happened, and a refusal does not.
	if j.Unanswered && !j.Status.Done() {
		j.Status = revocation.Unknown
	}
	if j.Status == revocation.NotAttempted {
		e.left++
	}
	if err := e.watcher.Ended(&j.Outcome); err != nil {
		e.fail(err)
	}
}

// fail ends the run because of the watcher.
func (e *engine) fail(err error) {
	e.watcherError = err
	e.stop(revocation.Answer{Err: err})
}

// conclude hands out the outcomes of what is left, and says why it is left.
func (e *engine) conclude(ctx context.Context) error {
	for _, j := range e.waiting {
		if j.askedAfresh { // and the fresh token was not tried
			j.begun = false
		}
		e.finish(j)
	}
	for i := e.next; i < len(e.list); i++ {
		if !e.list[i].Done {
			e.finish(&job{Outcome: revocation.Outcome{Target: &e.list[i]}})
		}
	}
	switch {
	case e.watcherError != nil:
		return e.watcherError
	case e.stopped && ctx.Err() != nil:
		return e.stoppedBy.Err
	case !e.stopped || e.left == 0 || len(e.list) == 1: // the outcomes say it all
		return nil
	}
	return &Stopped{Left: e.left, Err: e.stoppedBy.Err}
}

// afterwards returns a context that ends a while after ctx.
func afterwards(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(while, cancel) })
	return later, func() { stop(); cancel() }
}
