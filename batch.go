package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/ca/client"
	"go.step.sm/crypto/randutil"
)

// maxWait is the longest time between two attempts, unless the CA asks for more.
const maxWait = 5 * time.Second

// A batch is the targets of a run with everything that it takes to revoke them.
type batch struct {
	options *options
	ca      authority
	proof   authorizer
	targets []*target
}

// run revokes the targets one after the other and hands out what became of
// each as it happens. After a signal it attempts no more of them; what is in
// flight may still finish.
func (b *batch) run(ctx context.Context, each func(*outcome)) []*outcome {
	inFlight, cancel := afterwards(ctx, grace)
	defer cancel()
	var outcomes []*outcome
	for _, t := range b.targets {
		o := &outcome{target: t, status: statusNotAttempted}
		if ctx.Err() == nil {
			b.revoke(ctx, inFlight, o)
		}
		o.time = time.Now().UTC()
		each(o)
		outcomes = append(outcomes, o)
	}
	return outcomes
}

// revoke revokes one certificate. It tries again, each time with a fresh token,
// while that may help and for as long as --retry-for says. Once an attempt has
// gone without an answer, only a later one can tell whether it went through.
func (b *batch) revoke(ctx, inFlight context.Context, o *outcome) {
	var refusedOnce bool
	attempt := func() error {
		o.attempts++
		stop := context.AfterFunc(ctx, func() { sayMarked(warn, "interrupted: waiting for the answer for at most %s", grace) })
		o.err = b.send(inFlight, o)
		stop()
		var a *answer
		switch {
		case o.err == nil, !b.proof.Repeatable():
			return nil
		case errors.As(o.err, &a) && a.status == http.StatusUnauthorized && !refusedOnce:
			refusedOnce = true // the CA may have restarted after the token was made
			return &backoff.RetryAfterError{}
		case errors.As(o.err, new(noAnswer)):
			o.unanswered = true
			o.crlStale = o.crlStale || a != nil && a.status == http.StatusInternalServerError
		case !errors.As(o.err, new(notSent)) && (a == nil || a.status != http.StatusTooManyRequests):
			return nil
		}
		return o.err
	}
	retry(ctx, b.options.retryFor, attempt, func(wait time.Duration) {
		sayMarked(warn, "serial number %s, attempt %d: %v; trying again in %s", o.target.serial, o.attempts, o.err, wait)
	})
	switch o.status = statusOf(o.err); {
	case o.status == statusPlanned:
		o.attempts, o.requestID = 0, ""
	case o.status == statusFailed && o.unanswered:
		o.status = statusUnknown
	}
}

// retry repeats an attempt while it returns an error, which is the reason to:
// with exponential backoff and jitter or, where an answer says how long to wait,
// after that. What would begin later than limit does not.
func retry(ctx context.Context, limit time.Duration, attempt func() error, notify func(wait time.Duration)) {
	retries := backoff.WithMaxElapsedTime(limit)
	if limit == 0 {
		retries = backoff.WithMaxTries(1)
	}
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = maxWait
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		err := attempt()
		if a, ok := asAnswer(err); ok && a.retryAfter > 0 {
			err = &backoff.RetryAfterError{Duration: a.retryAfter}
		}
		return struct{}{}, err
	}, retries, backoff.WithBackOff(waits), backoff.WithNotify(func(_ error, wait time.Duration) {
		notify(wait.Round(time.Millisecond))
	}))
}

// send makes one attempt.
func (b *batch) send(ctx context.Context, o *outcome) error {
	serial := o.target.serial.String()
	token, err := b.proof.Token(serial)
	if err != nil {
		return err
	}
	// With an ID of our own, an answer that is lost can be found in the CA's log.
	if o.requestID, err = randutil.UUIDv4(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(client.NewRequestIDContext(ctx, o.requestID), b.options.timeout)
	defer cancel()
	return b.ca.Revoke(ctx, &api.RevokeRequest{
		Serial: serial, OTT: token, Reason: b.options.reason, ReasonCode: b.options.reasonCode.code, Passive: true,
	})
}

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
	}
	return statusFailed
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
func (d dryRun) Open(ctx context.Context, targets []*target) error {
	if _, err := d.authority.Issuers(ctx); err != nil {
		return err
	}
	return d.authority.Open(ctx, targets)
}

func (dryRun) Revoke(context.Context, *api.RevokeRequest) error { return errPlanned }
