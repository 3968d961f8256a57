package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/certificates/errs"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A refusal is an answer of the CA, or of something in front of it, with an HTTP
// status of 400 or more.
type refusal struct {
	status     int
	text       string // without a full stop at its end
	revoked    string // the serial number that step-ca says was revoked before, or ""
	requestID  string
	retryAfter time.Duration // what the header Retry-After says, or 0
}

func (r *refusal) Error() string { return r.text + " " + r.identity() }

// identity is what finds the answer in the CA's log.
func (r *refusal) identity() string {
	s := fmt.Sprintf("(HTTP %d", r.status)
	if r.requestID != "" {
		s += ", request ID " + r.requestID
	}
	if r.retryAfter > 0 {
		s += fmt.Sprintf(", to be tried again after %s", r.retryAfter.Round(time.Second))
	}
	return s + ")"
}

// asRefusal finds the refusal in an error.
func asRefusal(err error) (r *refusal, ok bool) {
	ok = errors.As(err, &r)
	return r, ok
}

// refusal makes an error of a refusal. The text is the message of step-ca, or
// else the beginning of whatever was answered.
func (x exchange) refusal(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil { // half of a refusal may be half of an "already revoked"
		return err
	}
	r := &refusal{
		status: resp.StatusCode, text: http.StatusText(resp.StatusCode),
		requestID: x.hide(fmt.Sprintf("%.100s", resp.Header.Get("X-Request-Id"))), retryAfter: retryAfter(resp.Header),
	}
	var parsed errs.ErrorResponse
	if json.Unmarshal(body, &parsed) == nil && parsed.Message != "" {
		r.text = parsed.Message
		if parsed.Status == resp.StatusCode {
			r.revoked = revokedSerial(parsed.Message)
		}
	} else if text := strings.Join(strings.Fields(fmt.Sprintf("%.200s", body)), " "); text != "" {
		r.text = text
	}
	r.text = x.hide(strings.TrimSuffix(r.text, "."))
	return r
}

// revokedSerial returns the serial number of which a message of step-ca says
// that it was revoked before, or "". The text is that of authority/tls.go,
// Authority.Revoke, since version 0.22 at least, as errs.BadRequest completes it.
func revokedSerial(message string) string {
	serial, begins := strings.CutPrefix(message, errs.BadRequestPrefix+"certificate with serial number '")
	serial, ends := strings.CutSuffix(serial, "' is already revoked.")
	if !begins || !ends || len(serial) > 64 { // digits, and more than any has
		return ""
	}
	return serial
}

// retryAfter reads the header Retry-After: seconds, or a date (RFC 9110, section
// 10.2.3). It returns at most a day, and 0 for what is in the past.
func retryAfter(h http.Header) time.Duration {
	const longest = 24 * time.Hour // more than anybody waits, and far from an overflow
	value := h.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(longest/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = time.Until(date)
	}
	return min(max(wait, 0), longest)
}

// isTransient tells whether the CA may answer otherwise a moment later.
func (r *refusal) isTransient() bool {
	return r.status == http.StatusTooManyRequests || r.status >= 500 && r.status != http.StatusNotImplemented
}

// isPassedOn tells whether a registration authority has passed on a refusal of
// its CA. step-ca then answers with that CA's status, but with the text of a 500
// (authority/tls.go, Authority.Revoke; errs/error.go, Wrap and NewErr). It does
// not combine the two for refusals of its own.
func (r *refusal) isPassedOn() bool {
	return !r.isTransient() && r.text == strings.TrimSuffix(errs.InternalServerErrorDefaultMsg, ".")
}

// answer says what the refusal of a revocation means.
func (r *refusal) answer(serial target.Serial) revocation.Answer {
	if r.status == http.StatusBadRequest && r.revoked == serial.String() {
		return revocation.Answer{Status: revocation.AlreadyRevoked}
	}
	a := revocation.Answer{
		Status: revocation.Failed, Err: r.withHints(), Cause: fmt.Sprintf("%s (HTTP %d)", r.text, r.status),
		Next: revocation.Others, After: r.retryAfter,
	}
	switch {
	case r.isTransient():
		a.Next = revocation.Again
		if r.status != http.StatusTooManyRequests {
			a.Status, a.StaleCRL = revocation.Unknown, r.status == http.StatusInternalServerError
		}
	case r.isPassedOn():
		a.Cause = fmt.Sprintf("%s (HTTP %d)", behind, r.status)
		if r.status == http.StatusBadRequest { // a batch that is run again must get beyond what is revoked
			a.Next = revocation.Alone
		}
	case r.status == http.StatusNotImplemented:
		a.Next = revocation.Nothing
	case r.status == http.StatusUnauthorized:
		a.Next = revocation.FreshToken
	}
	return a
}

// behind is said of the CA of a registration authority.
const behind = "the CA behind this registration authority has refused it"

// withHints says what to do about the refusal of a revocation, where that is
// known.
func (r *refusal) withHints() error {
	p := problem.New("%w", r)
	switch {
	case r.isPassedOn() && r.status == http.StatusBadRequest:
		return problem.New("%s, most likely because it is revoked already: %w", behind, r).
			Hint("--dry-run --verify shows that, with the --ca-url of the CA itself")
	case r.isPassedOn():
		return problem.New("%s: %w", behind, r).Hint("the log of that CA says why")
	case r.status == http.StatusBadRequest && strings.Contains(r.text, "client certificate"):
		return p.Hint("the CA did not see the certificate: something between here and the CA may end TLS; revoke with a provisioner instead, without --key")
	case r.status == http.StatusUnauthorized:
		return p.Hint("the token may have been used before: each works once").
			Hint("the CA may have restarted after the token was made").
			Hint("the clock here or on the CA may be off").
			Hint("the host in --ca-url may not be one of the CA's dnsNames")
	case r.status == http.StatusNotImplemented:
		return p.Hint("this CA has no database and cannot revoke: see \"db\" in its ca.json")
	case r.status >= http.StatusInternalServerError:
		return p.Hint("a CA that builds a CRL with each revocation may have stored this one before it failed")
	}
	return r
}

// explain says for a person why the CA at an address could not be reached, or
// did not do what it was asked.
func explain(u *url.URL, asked string, err error) error {
	if errors.Is(err, context.Canceled) {
		return problem.ErrInterrupted
	}
	for _, e := range explanations {
		if why := e.find(err); why != nil {
			return problem.New(e.text, u, asked, why).Hint("%s", e.hint)
		}
	}
	return err
}

const (
	unreachable = "the CA at %[1]s cannot be reached: %[3]w"
	noStepCA    = "is this the address of a step-ca?"
)

// explanations are the texts and hints of explain; the first counts whose find
// returns an error. The arguments of a text are the CA's address, what it was
// asked, and that error.
var explanations = []struct {
	find       func(error) error
	text, hint string
}{
	{find[*refusal], "the CA at %[1]s was %[2]s and answered: %[3]w", noStepCA},
	{find[*redirectError], "the CA at %[1]s was %[2]s and answered with %[3]w",
		"redirects are not followed, so that a token goes nowhere else: use the CA's own address"},
	{causeIf(isTimeout), "the CA at %[1]s was %[2]s and did not answer in time", "--timeout gives it more time"},
	{causeIf(has[x509.UnknownAuthorityError]), unreachable,
		"its certificate does not come from the root that is trusted: if the address is right, --root or --fingerprint names another root"},
	{causeIf(has[x509.HostnameError]), unreachable, "use a name that is in the CA's certificate (dnsNames in its ca.json)"},
	{causeIf(has[x509.CertificateInvalidError]), unreachable, "check the clock here and on the CA"},
	{causeIf(isPlainText), unreachable, "what listens there does not speak TLS"},
	{causeIf(isAlert), "the CA at %[1]s refused the connection: %[3]w",
		"if that is about the certificate in --cert: it has to be one that this CA has issued"},
	{find[*json.SyntaxError], "the CA at %[1]s was %[2]s and answered with something that is not JSON: %[3]w", noStepCA},
	{find[*badAnswerError], "the CA at %[1]s was %[2]s, and its answer cannot be used: %[3]w", noStepCA},
	{causeIf(has[*net.DNSError]), unreachable, "check the host name in --ca-url"},
	{cause, unreachable, "check that the CA is running and that --ca-url is right; on its host --offline revokes while it is down"},
}

// find returns the error of type E in err, or nil.
func find[E error](err error) error {
	if e := *new(E); errors.As(err, &e) {
		return e
	}
	return nil
}

func has[E error](err error) bool { return errors.As(err, new(E)) }

// causeIf returns a function that returns the cause of an error if the error
// matches.
func causeIf(matches func(error) bool) func(error) error {
	return func(err error) error {
		if matches(err) {
			return cause(err)
		}
		return nil
	}
}

func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// isPlainText tells whether the other side does not speak TLS.
func isPlainText(err error) bool {
	return has[tls.RecordHeaderError](err) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// isAlert tells whether the other side has ended TLS with an alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// isCertificateAlert tells whether that alert refuses a certificate (RFC 8446,
// section 6.2). With TLS 1.3 a client certificate is refused after the request
// was sent. Any other alert says nothing about the request.
func isCertificateAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && isAlert(op) && slices.ContainsFunc([]tls.AlertError{
		42,  // bad_certificate
		43,  // unsupported_certificate
		44,  // certificate_revoked
		45,  // certificate_expired
		46,  // certificate_unknown
		48,  // unknown_ca
		49,  // access_denied
		116, // certificate_required
	}, func(alert tls.AlertError) bool { return op.Err.Error() == alert.Error() })
}

// cause strips an error of what its wrappers say about the request.
func cause(err error) error {
	var op *net.OpError
	if !has[*problem.Reworded](err) && errors.As(err, &op) {
		return op
	}
	return err
}
