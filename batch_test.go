package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/certificates/api"
)

// A scriptedCA is an authority whose answers a test makes up. It counts how many
// requests are under way.
type scriptedCA struct {
	authority
	answer func(n int, req *api.RevokeRequest) error // to the nth request, from 1

	mu           sync.Mutex
	n, now, most int
	began        []time.Duration // when each request came, since the first one
	start        time.Time
}

func (s *scriptedCA) Revoke(_ context.Context, req *api.RevokeRequest) error {
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
	time.Sleep(10 * time.Millisecond)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return s.answer(n, req)
}

// runBatch revokes so many serial numbers at a scripted CA, in a time of its
// own, and returns the report and why the run has stopped.
func runBatch(ctx context.Context, ca *scriptedCA, o *options, n int) (*report, error) {
	list := make([]target, n)
	for i := range list {
		list[i].serial = serialNumber{10: 1, 18: byte(i >> 8), 19: byte(i)}
	}
	r := newReport(o, list, nil)
	r.progress = newProgress(n)
	b := &batch{options: o, ca: ca, proof: certificateItself{}, list: list, report: r}
	return r, b.run(ctx)
}

func fine(int, *api.RevokeRequest) error { return nil }

// silently keeps what is meant for a person from the terminal, and returns it.
// Tests that use it cannot run in parallel.
func silently(t *testing.T, run func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer func(f *os.File) { os.Stderr = f }(os.Stderr)
	os.Stderr = file
	run()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func refusal(status int) error { return (&answer{status: status, text: "no"}).explain() }

// TestBatch shows what a batch makes of the answers of a CA.
func TestBatch(t *testing.T) {
	gone := notSent{errors.New("connection refused")}
	tests := []struct {
		name    string
		answer  func(n int, req *api.RevokeRequest) error
		n       int
		once    bool          // nothing is tried again
		want    string        // counts, in the order of the summary
		stopped string        // why the run has stopped
		least   time.Duration // that it takes
		most    time.Duration
		text    string // that a person is told
	}{
		{name: "all revoked", answer: fine, n: 500, want: "500 0 0 0 0", most: time.Second},
		{name: "already", answer: func(int, *api.RevokeRequest) error { return errAlreadyRevoked }, n: 30, want: "0 30 0 0 0", most: time.Second},
		{
			name: "one in five passes", n: 200, want: "200 0 0 0 0", least: 500 * time.Millisecond, most: 30 * time.Second,
			answer: func(n int, _ *api.RevokeRequest) error {
				if n%5 == 0 {
					return refusal(http.StatusServiceUnavailable)
				}
				return nil
			},
			text: "trying again in",
		},
		{
			name: "one never passes, and holds up nobody", n: 100, want: "99 0 0 1 0", least: 20 * time.Second, most: 31 * time.Second,
			answer: func(_ int, req *api.RevokeRequest) error {
				if req.Serial == (serialNumber{10: 1, 19: 50}).String() {
					return refusal(http.StatusInternalServerError)
				}
				return nil
			},
		},
		{
			name: "nothing succeeds", n: 5000, want: "0 0 0 * *", stopped: "the run has stopped with ", least: 30 * time.Second, most: 35 * time.Second,
			answer: func(int, *api.RevokeRequest) error { return refusal(http.StatusBadGateway) },
		},
		{
			name: "the CA is gone", n: 5000, want: "100 0 0 0 4900", stopped: "the run has stopped with 4,900 certificates left: connection refused", least: 20 * time.Second, most: 31 * time.Second,
			answer: func(n int, _ *api.RevokeRequest) error {
				if n > 100 {
					return gone
				}
				return nil
			},
			text: "⚠ connection refused; trying again in",
		},
		{
			name: "a token from before a restart", n: 100, want: "100 0 0 0 0", most: time.Second,
			answer: func(n int, _ *api.RevokeRequest) error {
				if n <= 20 {
					return refusal(http.StatusUnauthorized)
				}
				return nil
			},
		},
		{
			name: "tokens from before each restart", n: 1, want: "1 0 0 0 0", most: 30 * time.Second,
			answer: func(n int, _ *api.RevokeRequest) error {
				return []error{refusal(http.StatusUnauthorized), refusal(http.StatusServiceUnavailable), refusal(http.StatusUnauthorized),
					gone, refusal(http.StatusUnauthorized), nil}[n-1]
			},
		},
		{
			name: "no second attempts, and no answers", n: 5000, once: true, want: "0 0 0 * *", stopped: "the run has stopped with 4,9", most: time.Second,
			answer: func(int, *api.RevokeRequest) error { return refusal(http.StatusBadGateway) },
		},
		{
			name: "no authorization", n: 5000, want: "0 0 * 0 *", stopped: "the run has stopped with ", most: time.Second,
			answer: func(int, *api.RevokeRequest) error { return refusal(http.StatusUnauthorized) },
			text:   "further failures are counted from here on",
		},
		{
			name: "no database", n: 5000, want: "0 0 * 0 *", stopped: "(HTTP 501)", most: time.Second,
			answer: func(int, *api.RevokeRequest) error { return refusal(http.StatusNotImplemented) },
		},
		{
			name: "some are refused", n: 100, want: "80 0 20 0 0", most: time.Second,
			answer: func(n int, _ *api.RevokeRequest) error {
				if n%5 == 0 {
					return refusal(http.StatusForbidden)
				}
				return nil
			},
		},
		{
			name: "all are refused", n: 5000, want: "0 0 * 0 *", stopped: "no (HTTP 403)", most: time.Second,
			answer: func(int, *api.RevokeRequest) error { return refusal(http.StatusForbidden) },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := &scriptedCA{answer: tt.answer}
				o := &options{concurrency: 64, timeout: time.Second, retryFor: 30 * time.Second}
				if tt.once {
					o.retryFor = 0
				}
				var r *report
				var err error
				text := silently(t, func() { r, err = runBatch(t.Context(), ca, o, tt.n) })
				var got []string
				want := strings.Fields(tt.want)
				total := 0
				for i, s := range []status{statusRevoked, statusAlreadyRevoked, statusFailed, statusUnknown, statusNotAttempted} {
					total += r.counts[s]
					if want[i] == "*" && r.counts[s] > 0 {
						got = append(got, "*")
					} else {
						got = append(got, fmt.Sprint(r.counts[s]))
					}
				}
				if got := strings.Join(got, " "); got != tt.want || total != tt.n {
					t.Errorf("outcomes %v, want %s", r.counts, tt.want)
				}
				if err == nil != (tt.stopped == "") || err != nil && !strings.Contains(err.Error(), tt.stopped) {
					t.Errorf("stopped by %v, want %q", err, tt.stopped)
				}
				if took := time.Since(ca.start); took < tt.least || took > tt.most {
					t.Errorf("it took %s, not between %s and %s", took, tt.least, tt.most)
				}
				if !strings.Contains(text, tt.text) {
					t.Errorf("no %q in:\n%s", tt.text, text)
				}
				if ca.most > o.concurrency {
					t.Errorf("%d requests at the same time", ca.most)
				}
				if n := strings.Count(text, "\n"); n > 200 {
					t.Errorf("%d lines for a person", n)
				}
			})
		})
	}
}

// TestOutage shows that a CA that is gone is asked by one worker alone, and that
// all go on once it is back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := &scriptedCA{}
		var back time.Duration
		ca.answer = func(int, *api.RevokeRequest) error {
			now := time.Since(ca.start)
			if now > time.Second && now < 9*time.Second {
				return notSent{errors.New("connection refused")}
			}
			return nil
		}
		o := &options{concurrency: 32, timeout: time.Second, retryFor: 30 * time.Second}
		var r *report
		text := silently(t, func() { r, _ = runBatch(t.Context(), ca, o, 20000) })
		if r.counts[statusRevoked] != 20000 || strings.Count(text, "✔ The CA can be reached again\n") != 1 {
			t.Errorf("outcomes %v, and for a person:\n%s", r.counts, text)
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
		if back > 15*time.Second || soon < o.concurrency {
			t.Errorf("the CA was asked again after %s, and then %d times in 50 ms", back, soon)
		}
	})
}

// TestRate shows that --rate is kept in each second, and made use of.
func TestRate(t *testing.T) {
	for _, rate := range []int{1, 7, 100, 1000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := &scriptedCA{answer: fine}
				o := &options{concurrency: 64, rate: rate, timeout: time.Second}
				n := rate*5 + 1
				silently(t, func() { _, _ = runBatch(t.Context(), ca, o, n) })
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

// TestInterrupted shows that what is under way gets its answer, and nothing else
// is begun.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ca := &scriptedCA{answer: func(n int, _ *api.RevokeRequest) error {
			if n == 100 {
				cancel()
			}
			return nil
		}}
		o := &options{concurrency: 16, timeout: time.Second, retryFor: time.Second}
		var r *report
		var err error
		silently(t, func() { r, err = runBatch(ctx, ca, o, 1000) })
		if !errors.Is(err, errInterrupted) {
			t.Errorf("error %v", err)
		}
		if done := r.counts[statusRevoked]; done < 100 || done > 100+2*16 || ca.n != done || r.counts[statusNotAttempted] != 1000-done {
			t.Errorf("%d requests, outcomes %v", ca.n, r.counts)
		}
	})
}

// TestProgressLines shows what is printed where there is no terminal.
func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := &scriptedCA{answer: func(n int, _ *api.RevokeRequest) error {
			if n%100 == 0 {
				return refusal(http.StatusForbidden)
			}
			return nil
		}}
		o := &options{concurrency: 4, rate: 100, timeout: time.Second}
		text := silently(t, func() { _, _ = runBatch(t.Context(), ca, o, 3500) })
		var lines []string
		for line := range strings.Lines(text) {
			if strings.Contains(line, " done, ") {
				lines = append(lines, line)
			}
		}
		want := []string{"1,000 of 3,500 done, 10 failed, 100/s, 25s left\n", "2,000 of 3,500 done, 20 failed, 100/s, 15s left\n", "3,000 of 3,500 done, 30 failed, 100/s, 5s left\n"}
		if len(lines) != 3 {
			t.Fatalf("lines %q", lines)
		}
		for i := range want {
			if a, b := strings.Fields(lines[i]), strings.Fields(want[i]); a[2] != b[2] || a[5] != b[5] || !strings.HasSuffix(lines[i], b[len(b)-2]+" left\n") {
				t.Errorf("line %q, want about %q", lines[i], want[i])
			}
		}
	})
}

// TestReadFrom shows what is read from a file of --from, and which are refused.
func TestReadFrom(t *testing.T) {
	const a, b = "308893286343609293989051180431574390766", "182670349926471833261784960213309412735"
	long := strings.Repeat("1", maxLine)
	tests := []struct{ name, in, want, wantErr, wantHint string }{
		{name: "list", in: a + "\n" + b + "\n", want: a + " " + b},
		{name: "no last line break", in: a + "\n" + b, want: a + " " + b},
		{name: "CRLF, comments and blanks", in: "\r\n# x\r\n " + a + " # y\r\n\t\r\n" + b + "#z\r\n", want: a + " " + b},
		{name: "byte-order mark", in: "\ufeff" + a, want: a},
		{name: "joined files", in: "\ufeff" + a + "\n\ufeff" + b + "\n", want: a + " " + b},
		{name: "forms", in: "0xe862aed7b5188396dd149b96a6e557ee\ne8:62:ae:d7:b5:18:83:96:dd:14:9b:96:a6:e5:57:ee", want: a},
		{name: "empty", in: "", wantErr: "f names no certificate at all", wantHint: "failed?"},
		{name: "only comments", in: "# a\n\n  \n", wantErr: "f names no certificate at all"},
		{name: "bad line", in: a + "\n5a3a\n", wantErr: `f, line 2: "5a3a" is not a serial number`, wantHint: "write 0x5a3a"},
		{name: "too small", in: a + "\n\n255", wantErr: "f, line 3: the serial number 255 is too small", wantHint: "ssh"},
		{name: "not shown", in: "hunter2-hunter2", wantErr: "f, line 1 is not a serial number", wantHint: "one a line"},
		{name: "not shown either", in: strings.Repeat("ab", 32), wantErr: "f, line 1 is not a serial number"},
		{name: "token", in: a + "\neyJhbGciOiJFUzI1NiJ9.e30.c2ln", wantErr: "f, line 2 is not a serial number"},
		{name: "two on a line", in: a + " " + b, wantErr: "f, line 1 is not a serial number"},
		{name: "commas", in: a + "," + b, wantErr: "f, line 1 is not a serial number"},
		{name: "long line", in: a + "\n" + long, wantErr: "f, line 2 has more than 1048576 bytes"},
		{name: "key", in: "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n", wantErr: `f holds no certificate, but PEM of type "EC PRIVATE KEY"`},
		{name: "request", in: "-----BEGIN CERTIFICATE REQUEST-----\nc2VjcmV0\n-----END CERTIFICATE REQUEST-----\n", wantErr: `f, line 1: PEM of type "CERTIFICATE REQUEST", and not a certificate`},
		{name: "malformed", in: "text\n-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n", wantErr: "f, line 2: the certificate that begins here is malformed"},
		{name: "no base64", in: "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", wantErr: "f, line 1: the certificate that begins here is malformed"},
		{name: "no end", in: "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n", wantErr: "f, line 1: the PEM block that begins here has no end"},
		{name: "two begins", in: "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1: the PEM block that begins here has no end"},
		{name: "list, then PEM", in: a + "\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2: serial numbers and certificates in one file"},
		{name: "text, number, then PEM", in: "text\n" + a + "\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 1 is not a serial number"},
		{name: "number with a note in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a + " # note\n", wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON in PEM", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + `{"serial":"` + a + `"}`, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "no line break before PEM", in: "name: -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", wantErr: "f, line 1: a certificate that does not begin or end on a line of its own", wantHint: "line break"},
		{name: "list, text, then PEM", in: a + "\ntext\n-----BEGIN CERTIFICATE-----\n", wantErr: "f, line 2 is not a serial number"},
		{name: "PEM, then list", in: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n" + a, wantErr: "f, line 4: serial numbers and certificates in one file"},
		{name: "JSON", in: `{"serial":"` + a + `","status":"failed"}` + "\n# reviewed\n\n" + `{"serial":"` + b + `","error":"#"}`, want: a + " " + b},
		{name: "journal", in: `{"journal":1,"ca":"https://ca"}` + "\n" + `{"serial":"` + a + `","ca":"https://ca","status":"revoked","reasonCode":4}`, want: a},
		{name: "other CA", in: `{"serial":"` + a + `","ca":"https://other"}`, wantErr: "f, line 1 is about another CA, https://other", wantHint: "--allow-unknown"},
		{name: "no serial", in: `{"status":"failed"}`, wantErr: "f, line 1 has no serial number"},
		{name: "JSON array", in: `["` + a + `"]`, wantErr: "f, line 1 is not a serial number"},
		{name: "broken JSON", in: `{"serial":"` + a + `"}` + "\n" + `{"serial":"secr`, wantErr: "f, line 2 is not one of our JSON objects"},
		{name: "list in JSON", in: `{"serial":"` + a + `"}` + "\n" + b, wantErr: "f, line 2 is not one of our JSON objects"},
		{name: "JSON in list", in: b + "\n" + `{"serial":"` + a + `"}`, wantErr: "f, line 2 is not a serial number"},
		{name: "bad number", in: `{"serial":"00` + a + `"}`, wantErr: "f, line 1: \"00" + a + `" is not a serial number`},
		{name: "reasons", in: `{"serial":"` + a + `","status":"planned","reasonCode":4}` + "\n" + `{"serial":"` + b + `","status":"planned","reasonCode":1}`, wantErr: "f, line 2 was planned with the reason keyCompromise, and not with superseded"},
		{name: "unused reason", in: `{"serial":"` + a + `","status":"planned","reasonCode":7}`, wantErr: "f, line 1: reason code 7 is not used"},
		{name: "DER", in: "0\x82\x01\x0a", wantErr: "f, line 1 is not a serial number"},
		{name: "other text", in: strings.Repeat("some text\n", 1<<18), wantErr: "f, line 1 is not a serial number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, _ := parseURL("https://ca")
			f := &fromFile{targets: &targets{index: map[serialNumber]uint32{}}, options: &options{caURL: u, reasonCode: reasons[0]}, name: "f"}
			err := f.read(withoutMark(bytes.NewReader([]byte(tt.in))))
			if err == nil && len(f.list) == 0 {
				err = f.nothing()
			}
			if tt.wantErr != "" {
				checkProblem(t, tt.name, err, tt.wantErr, tt.wantHint)
				return
			}
			var got []string
			for _, target := range f.list {
				got = append(got, target.serial.String())
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%q, %v; want %s", got, err, tt.want)
			}
		})
	}
}
