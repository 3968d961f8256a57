package online

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// maxWait is the longest time between two attempts, unless the CA asks for more.
const maxWait = 5 * time.Second

// A client asks a CA questions that need no authorization.
type client struct {
	way
	timeout  time.Duration // for one request
	retryFor time.Duration // how long to ask again, all questions together
	spent    time.Duration // on questions, of retryFor
	// chains are those of the CA's own certificate, up to trusted roots. They
	// are nil until a trusted CA has been reached.
	chains atomic.Pointer[[][]*x509.Certificate]
}

// newClient prepares a client; it stores the verified chains of each connection
// that is made with the TLS configuration.
func newClient(cfg Config, config *tls.Config) *client {
	c := &client{way: newWay(cfg, config), timeout: cfg.Timeout, retryFor: cfg.RetryFor}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.VerifiedChains) > 0 {
			c.chains.Store(&state.VerifiedChains)
		}
		return nil
	}
	return c
}

// patience returns a context that ends when a question, with all its pages and
// repetitions, must have been answered. One question comes after the other: what it
// takes, until the end of the context, is taken from the time of the others.
func (c *client) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, max(0, c.retryFor-c.spent)+c.timeout)
	start := time.Now()
	return ctx, func() { c.spent += time.Since(start); cancel() }
}

// get asks for a document of the CA's API. ask says how, and read takes it.
func (c *client) get(ctx context.Context, asked string, x exchange) error {
	ctx, cancel := c.patience(ctx)
	defer cancel()
	x.method = http.MethodGet
	return c.ask(ctx, asked, func(ctx context.Context) error {
		_, err := c.send(ctx, x)
		return err
	})
}

// ask asks a question, and again for as long as the patience of ctx allows while
// the failure may be transient: with exponential backoff and jitter, or after
// the time that the CA asks for. The last attempt begins at the end of retryFor.
// asked says in an error what the CA was asked, as in "asked for its CRL".
func (c *client) ask(ctx context.Context, asked string, question func(context.Context) error) error {
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = maxWait
	end, _ := ctx.Deadline()
	for first := c.firstContact(asked); ; {
		err := c.askOnce(ctx, question)
		switch {
		case first.again(ctx, err):
			continue
		case err == nil:
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return problem.ErrInterrupted
		}
		explained := explain(c.url, asked, err)
		left := time.Until(end) - c.timeout
		wait := min(waits.NextBackOff(), left)
		if r, ok := asRefusal(err); ok && r.retryAfter > 0 {
			wait = r.retryAfter
		}
		if !c.mayPass(err) || left <= 0 || wait > left {
			return explained
		}
		ui.Warn("%v; trying again in %s", explained, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return problem.ErrInterrupted
		}
	}
}

func (c *client) askOnce(ctx context.Context, question func(context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return question(timed)
}

// contactFor is how long to try again to reach a CA that refuses the connection: it
// may be restarting.
const contactFor = 4 * time.Second

// A contact is the first attempt to reach a CA, with its repetitions.
type contact struct {
	*client
	asked string
	end   time.Time
	waits *backoff.ExponentialBackOff // nil before the first repetition
}

func (c *client) firstContact(asked string) *contact {
	return &contact{client: c, asked: asked, end: time.Now().Add(min(contactFor, max(0, c.retryFor-c.spent)))}
}

// again tells whether an error means that a CA, which was never reached, has refused
// the connection, and waits before the next attempt. The last one begins at the end
// of contactFor, or of retryFor if that is shorter.
func (f *contact) again(ctx context.Context, err error) bool {
	left := time.Until(f.end)
	if err == nil || f.chains.Load() != nil || !isRefusedConnection(err) || left <= 0 || ctx.Err() != nil {
		return false
	}
	if f.waits == nil {
		f.waits = backoff.NewExponentialBackOff()
		ui.Warn("%v; trying again for %s", explain(f.url, f.asked, err), left.Round(time.Second))
	}
	select {
	case <-time.After(min(f.waits.NextBackOff(), left)):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// isRefusedConnection tells whether nobody listens at an address. Windows has a
// number of its own for that, WSAECONNREFUSED.
func isRefusedConnection(err error) bool {
	const wsaRefused = 10061
	var number syscall.Errno
	return errors.As(err, &number) && (number == syscall.ECONNREFUSED || number == wsaRefused)
}

// mayPass tells whether the same question may succeed a moment later. A CA that
// was never reached may not exist at all, and is not waited for (but see contact).
func (c *client) mayPass(err error) bool {
	if r, ok := asRefusal(err); ok {
		return r.isTransient()
	}
	return c.chains.Load() != nil && !has[*badAnswerError](err) && !has[*redirectError](err) &&
		!isCertificateAlert(err) && !(isAlert(err) && has[*unsentError](err))
}

// readJSON decodes an answer, all of it.
func readJSON(body io.Reader, value any) (size int64, err error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal(data, value)
	switch {
	case has[*badAnswerError](err):
		return 0, err
	case has[*json.SyntaxError](err):
		return 0, badAnswer("it is not JSON: %w", err)
	case err != nil:
		return 0, badAnswer("it cannot be read: %w", err)
	}
	return int64(len(data)), nil
}

// into returns a function that decodes an answer into a value.
func into(value any) func(io.Reader) error {
	return func(body io.Reader) error { _, err := readJSON(body, value); return err }
}

// readDER reads a DER value, of so many bytes at most, into memory of just its
// size. What is none comes back in part, for a parser to refuse.
func readDER(body io.Reader, limit int64) ([]byte, error) {
	r := bufio.NewReader(body)
	head, _ := r.Peek(6) // an error comes up again
	size := derSize(head)
	if size > limit {
		return nil, badAnswer("it has more than %s", inBytes(limit))
	}
	data := bytes.NewBuffer(make([]byte, 0, size+1+bytes.MinRead))
	_, err := data.ReadFrom(io.LimitReader(r, size+1)) // with a byte of what should not follow
	return data.Bytes(), err
}

// derSize returns the size of a SEQUENCE in DER that begins with these 6 bytes,
// or 0 if it is none (X.690, section 8.1).
func derSize(head []byte) (size int64) {
	if len(head) < 6 || head[0] != 0x30 {
		return 0
	}
	if head[1] < 0x80 {
		return 2 + int64(head[1])
	}
	more := int(head[1] - 0x80) // bytes that the length takes
	if more > 4 {
		return 0
	}
	for _, b := range head[2 : 2+more] {
		size = size<<8 | int64(b)
	}
	return 2 + int64(more) + size
}
