package batch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A scriptedCA gives the answers that a test makes up. It counts how many
// requests are in flight.
type scriptedCA struct {
	answer func(n int, req revocation.Request) revocation.Answer // to the nth request, from 1

	mu           sync.Mutex
	n, now, most int
	began        []time.Duration // when each request came, since the first one
	start        time.Time
}

func (s *scriptedCA) Revoke(_ context.Context, req revocation.Request) revocation.Answer {
	s.mu.Lock()
	if s.n == 0 {
		s.start = time.Now()
	}
	s.n++
	s.now++
	n := s.n
	s.most = max(s.most, s.now)
	s.began = append(s.began, time.Since(s.start))
	s.mu.Unlock()
	time.Sleep(10 * time.Millisecond) // in the time of synctest
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return s.answer(n, req)
}

// connection is a proof without tokens.
type connection struct{}

func (connection) Token(target.Serial) (string, error) { return "", nil }
func (connection) Repeatable() bool                    { return true }

// A recorder is a watcher that writes down what it is told.
type recorder struct {
	counts  map[revocation.Status]int
	events  []string
	failAt  int // the outcome that cannot be taken, from 1
	panicAt int // the outcome that makes it panic
	ended   int
}

func (r *recorder) note(format string, args ...any) {
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Ended(o *revocation.Outcome) error {
	r.counts[o.Status]++
	if r.ended++; r.ended == r.failAt {
		return errors.New("no space left")
	}
	if r.ended == r.panicAt {
		panic("no such outcome")
	}
	return nil
}
func (r *recorder) Retrying(o *revocation.Outcome, wait time.Duration) {
	r.note("retrying after attempt %d: %v", o.Attempts, o.Err)
}
func (r *recorder) Unreachable(err error, wait time.Duration) { r.note("unreachable: %v", err) }
func (r *recorder) Reachable()                                { r.note("reachable") }
func (r *recorder) Interrupted(n int)                         { r.note("interrupted: %d in flight", n) }
func (r *recorder) Tick()                                     { r.note("tick") }

func (r *recorder) count(event string) (n int) {
	for _, e := range r.events {
		if strings.HasPrefix(e, event) {
			n++
		}
	}
	return n
}

func listOf(n int) *target.List {
	list := &target.List{All: make([]target.Target, n)}
	for i := range list.All {
		list.All[i].Serial = target.Serial{10: 1, 18: byte(i >> 8), 19: byte(i)}
	}
	return list
}

// run revokes so many serial numbers at a scripted CA, in a time of its own.
func run(ctx context.Context, ca *scriptedCA, c Config, n int) (*recorder, error) {
	r := &recorder{counts: map[revocation.Status]int{}}
	if c.Interval == 0 {
		c.Interval = time.Hour
	}
	return r, Run(ctx, c, ca, connection{}, listOf(n), r)
}

var (
	revoked   = revocation.Answer{Status: revocation.Revoked}
	gone      = revocation.Answer{Status: revocation.NotAttempted, Next: revocation.Reach, Err: errors.New("connection refused")}
	expired   = refusal("no (HTTP 401)", revocation.FreshToken)
	forbidden = refusal("no (HTTP 403)", revocation.Others)
	noAnswer  = revocation.Answer{Status: revocation.Unknown, Next: revocation.Again, Err: errors.New("no (HTTP 503)")}
)

func refusal(text string, next revocation.Next) revocation.Answer {
	return revocation.Answer{Status: revocation.Failed, Next: next, Err: errors.New(text)}
}

// always gives each request the same answer.
func always(a revocation.Answer) func(int, revocation.Request) revocation.Answer {
	return func(int, revocation.Request) revocation.Answer { return a }
}

// eachFifth gives every fifth request another answer than revoked.
func eachFifth(a revocation.Answer) func(int, revocation.Request) revocation.Answer {
	return func(n int, _ revocation.Request) revocation.Answer {
		if n%5 == 0 {
			return a
		}
		return revoked
	}
}

// until gives the first n requests an answer, and revokes from then on.
func until(last int, a revocation.Answer) func(int, revocation.Request) revocation.Answer {
	return func(n int, _ revocation.Request) revocation.Answer {
		if n <= last {
			return a
		}
		return revoked
	}
}

// TestRun shows what a batch makes of the answers of a CA.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		answer  func(n int, req revocation.Request) revocation.Answer
		n       int
		once    bool          // nothing is tried again
		want    string        // revoked, already revoked, failed, unknown, not attempted; * is some
		stopped string        // why the run has stopped
		least   time.Duration // that it takes
		most    time.Duration
		event   string // that a watcher is told
	}{
		{name: "all revoked", answer: always(revoked), n: 500, want: "500 0 0 0 0", most: time.Second},
		{name: "already", answer: always(revocation.Answer{Status: revocation.AlreadyRevoked}), n: 30, want: "0 30 0 0 0", most: time.Second},
		{
			name: "one in five passes", n: 200, want: "200 0 0 0 0", least: 500 * time.Millisecond, most: 30 * time.Second,
			answer: eachFifth(noAnswer), event: "retrying after attempt 1: no (HTTP 503)",
		},
		{
			name: "one in five is asked for a longer wait", n: 50, want: "50 0 0 0 0", least: 20 * time.Second, most: 30 * time.Second,
			answer: until(10, revocation.Answer{Status: revocation.Failed, Next: revocation.Again, After: 20 * time.Second, Err: errors.New("slow down")}),
		},
		{
			name: "one never passes, and holds up nobody", n: 100, want: "99 0 0 1 0", least: 20 * time.Second, most: 31 * time.Second,
			answer: func(_ int, req revocation.Request) revocation.Answer {
				if req.Serial == (target.Serial{10: 1, 19: 50}) {
					return noAnswer
				}
				return revoked
			},
		},
		{
			name: "nothing succeeds", n: 5000, want: "0 0 0 * *", stopped: "no (HTTP 503)", least: 30 * time.Second, most: 35 * time.Second,
			answer: always(noAnswer),
		},
		{
			name: "the CA is gone", n: 5000, want: "100 0 0 0 4900", stopped: "connection refused", least: 20 * time.Second, most: 31 * time.Second,
			answer: func(n int, _ revocation.Request) revocation.Answer {
				if n > 100 {
					return gone
				}
				return revoked
			},
			event: "unreachable: connection refused",
		},
		{name: "a token from before a restart", n: 100, want: "100 0 0 0 0", most: time.Second, answer: until(20, expired), event: "retrying after attempt 1: no (HTTP 401)"},
		{
			name: "tokens from before each restart", n: 1, want: "1 0 0 0 0", most: 30 * time.Second,
			answer: func(n int, _ revocation.Request) revocation.Answer {
				return []revocation.Answer{expired, noAnswer, expired, gone, expired, revoked}[n-1]
			},
		},
		{name: "a fresh token is refused as well", n: 1, want: "0 0 1 0 0", most: time.Second, answer: always(expired)},
		{
			name: "a refusal after a lost answer", n: 1, want: "0 0 0 1 0", most: 10 * time.Second,
			answer: func(n int, _ revocation.Request) revocation.Answer {
				return []revocation.Answer{noAnswer, forbidden}[n-1]
			},
		},
		{name: "no second attempts, and no answers", n: 5000, once: true, want: "0 0 0 * *", stopped: "no (HTTP 503)", most: time.Second, answer: always(noAnswer)},
		{name: "no authorization", n: 5000, want: "0 0 * 0 *", stopped: "no (HTTP 401)", most: time.Second, answer: always(expired)},
		{name: "no database", n: 5000, want: "0 0 * 0 *", stopped: "no (HTTP 501)", most: time.Second, answer: always(refusal("no (HTTP 501)", revocation.Nothing))},
		{name: "some are refused", n: 100, want: "80 0 20 0 0", most: time.Second, answer: eachFifth(forbidden)},
		{
			name: "each is refused for itself", n: 100, want: "50 0 50 0 0", most: time.Second,
			answer: until(50, refusal("not on hold", revocation.Alone)),
		},
		{name: "all are refused", n: 5000, want: "0 0 * 0 *", stopped: "no (HTTP 403)", most: time.Second, answer: always(forbidden)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca := &scriptedCA{answer: tt.answer}
				c := Config{Concurrency: 64, RetryFor: 30 * time.Second}
				if tt.once {
					c.RetryFor = 0
				}
				r, err := run(t.Context(), ca, c, tt.n)
				r.check(t, tt.want, tt.n)
				if stopped := (*Stopped)(nil); err == nil != (tt.stopped == "") ||
					err != nil && (err.Error() != tt.stopped || !errors.As(err, &stopped) || stopped.Left != r.counts[revocation.NotAttempted]) {
					t.Errorf("stopped by %#v, want %q", err, tt.stopped)
				}
				if took := time.Since(ca.start); took < tt.least || took > tt.most {
					t.Errorf("it took %s, not between %s and %s", took, tt.least, tt.most)
				}
				if r.count(tt.event) == 0 && tt.event != "" {
					t.Errorf("no %q in:\n%q", tt.event, r.events)
				}
				if ca.most > c.Concurrency {
					t.Errorf("%d requests at the same time", ca.most)
				}
			})
		})
	}
}

// check compares the outcomes of n targets.
func (r *recorder) check(t *testing.T, want string, n int) {
	t.Helper()
	var got []string
	total := 0
	for i, s := range []revocation.Status{revocation.Revoked, revocation.AlreadyRevoked, revocation.Failed, revocation.Unknown, revocation.NotAttempted} {
		total += r.counts[s]
		if strings.Fields(want)[i] == "*" && r.counts[s] > 0 {
			got = append(got, "*")
		} else {
			got = append(got, fmt.Sprint(r.counts[s]))
		}
	}
	if got := strings.Join(got, " "); got != want || total != n {
		t.Errorf("outcomes %v, want %s", r.counts, want)
	}
}

// TestOutage shows that a CA that is gone is asked by one worker alone, and that
// all go on once it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := &scriptedCA{}
		var back time.Duration
		ca.answer = func(int, revocation.Request) revocation.Answer {
			if now := time.Since(ca.start); now > time.Second && now < 9*time.Second {
				return gone
			}
			return revoked
		}
		c := Config{Concurrency: 32, RetryFor: 30 * time.Second}
		r, _ := run(t.Context(), ca, c, 20000)
		if r.counts[revocation.Revoked] != 20000 || r.count("reachable") != 1 {
			t.Errorf("outcomes %v, events %q", r.counts, r.events)
		}
		probes, soon := 0, 0
		for _, at := range ca.began {
			switch {
			case at > 1100*time.Millisecond && at < 9*time.Second:
				probes++
			case at >= 9*time.Second && back == 0:
				back = at
			case back > 0 && at < back+50*time.Millisecond:
				soon++
			}
		}
		if probes > 10 {
			t.Errorf("%d requests while the CA was gone", probes)
		}
		if back > 15*time.Second || soon < c.Concurrency {
			t.Errorf("the CA was asked again after %s, and then %d times in 50 ms", back, soon)
		}
	})
}

// TestRate shows that the rate is kept in each second, and made use of.
func TestRate(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{1, 7, 100, 1000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca := &scriptedCA{answer: always(revoked)}
				n := rate*5 + 1
				_, _ = run(t.Context(), ca, Config{Concurrency: 64, Rate: rate}, n)
				for i := range ca.began {
					if i > rate+rate/100 && ca.began[i]-ca.began[i-rate-rate/100-1] < time.Second-time.Millisecond {
						t.Fatalf("%d began between %s and %s", rate+rate/100+2, ca.began[i-rate-rate/100-1], ca.began[i])
					}
				}
				if last := ca.began[n-1]; last < 4900*time.Millisecond || last > 5100*time.Millisecond {
					t.Errorf("%d took %s, want 5s", n, last)
				}
			})
		})
	}
}

// TestInterrupted shows that requests in flight get their answers, and that no
// others begin.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ca := &scriptedCA{answer: func(n int, _ revocation.Request) revocation.Answer {
			if n == 100 {
				cancel()
			}
			return revoked
		}}
		r, err := run(ctx, ca, Config{Concurrency: 16, RetryFor: time.Second}, 1000)
		if !errors.Is(err, problem.ErrInterrupted) {
			t.Errorf("error %v", err)
		}
		if done := r.counts[revocation.Revoked]; done < 100 || done > 100+2*16 || ca.n != done || r.counts[revocation.NotAttempted] != 1000-done {
			t.Errorf("%d requests, outcomes %v", ca.n, r.counts)
		}
		if r.count("interrupted: ") != 1 {
			t.Errorf("events %q", r.events)
		}
	})
}

// TestWatcher shows that a watcher that fails ends the run, and that it is told
// of everything all the same; and that it is woken from time to time.
func TestWatcher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{counts: map[revocation.Status]int{}, failAt: 100}
		c := Config{Concurrency: 4, Rate: 10, Interval: time.Second}
		err := Run(t.Context(), c, &scriptedCA{answer: always(revoked)}, connection{}, listOf(1000), r)
		if err == nil || err.Error() != "no space left" || r.ended != 1000 {
			t.Errorf("error %v, %d outcomes", err, r.ended)
		}
		if done := r.counts[revocation.Revoked]; done < 100 || done > 110 {
			t.Errorf("outcomes %v", r.counts)
		}
		if ticks := r.count("tick"); ticks < 8 || ticks > 11 {
			t.Errorf("%d ticks in about ten seconds", ticks)
		}
	})
}

// TestPanic shows that a panic in a worker or in the watcher ends the run, and
// that the watcher is told of everything all the same.
func TestPanic(t *testing.T) {
	t.Parallel()
	t.Run("worker", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ca := &scriptedCA{answer: func(n int, _ revocation.Request) revocation.Answer {
				if n == 100 {
					panic("nil certificate")
				}
				return revoked
			}}
			r, err := run(t.Context(), ca, Config{Concurrency: 8, RetryFor: time.Second}, 1000)
			if !errors.As(err, new(*problem.Panic)) || r.ended != 1000 || r.counts[revocation.Unknown] != 1 || r.counts[revocation.Revoked] != ca.n-1 {
				t.Errorf("error %v, outcomes %v after %d requests", err, r.counts, ca.n)
			}
		})
	})
	t.Run("watcher", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ca := &scriptedCA{answer: always(revoked)}
			r := &recorder{counts: map[revocation.Status]int{}, panicAt: 100}
			err := Run(t.Context(), Config{Concurrency: 8, Interval: time.Hour}, ca, connection{}, listOf(1000), r)
			if !errors.As(err, new(*problem.Panic)) || r.ended != 1000 || r.counts[revocation.Revoked] != ca.n {
				t.Errorf("error %v, outcomes %v after %d requests", err, r.counts, ca.n)
			}
		})
	})
}

// TestRateAfterStall shows that requests that a CA has held up do not make the
// ones after them begin faster than the rate allows.
func TestRateAfterStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stalled := make(chan struct{})
		time.AfterFunc(6*time.Second, func() { close(stalled) })
		ca := &scriptedCA{answer: func(n int, _ revocation.Request) revocation.Answer {
			if n <= 16 {
				<-stalled
			}
			return revoked
		}}
		_, _ = run(t.Context(), ca, Config{Concurrency: 16, Rate: 4}, 60)
		for i := range ca.began {
			if i > 4 && ca.began[i]-ca.began[i-5] < time.Second-time.Millisecond {
				t.Fatalf("6 began between %s and %s", ca.began[i-5], ca.began[i])
			}
		}
	})
}

// TestLastAttempt shows that the last attempt begins when RetryFor ends, and that
// an outage does not count for what comes after it.
func TestLastAttempt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer revocation.Answer
	}{{"no answer", noAnswer}, {"not reached", gone}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca := &scriptedCA{answer: always(tt.answer)}
				_, _ = run(t.Context(), ca, Config{Concurrency: 1, RetryFor: 6 * time.Second}, 1)
				if last := ca.began[len(ca.began)-1]; last < 6*time.Second-20*time.Millisecond || last > 6*time.Second+20*time.Millisecond {
					t.Errorf("the last attempt began after %s", last)
				}
			})
		})
	}
	t.Run("outage", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ca := &scriptedCA{}
			ca.answer = func(int, revocation.Request) revocation.Answer {
				switch at := time.Since(ca.start); {
				case at < 14*time.Second:
					return gone
				case at < 25*time.Second:
					return noAnswer
				}
				return revoked
			}
			r, err := run(t.Context(), ca, Config{Concurrency: 4, RetryFor: 20 * time.Second}, 50)
			if err != nil || r.counts[revocation.Revoked] != 50 {
				t.Errorf("error %v, outcomes %v", err, r.counts)
			}
		})
	})
}
