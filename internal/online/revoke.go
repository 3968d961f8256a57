package online

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/smallstep/certificates/api"
	"go.step.sm/crypto/randutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// Revoke sends one revocation. Its request has an ID of our own, so that an
// answer that is lost can be found in the CA's log.
func (c *CA) Revoke(ctx context.Context, req revocation.Request) revocation.Answer {
	id, err := randutil.UUIDv4()
	if err != nil {
		return revocation.Answer{Status: revocation.Failed, Err: fmt.Errorf("making a request ID: %w", err)}
	}
	body, err := json.Marshal(api.RevokeRequest{
		Serial: req.Serial.String(), OTT: req.Token, Reason: req.Reason.Text, ReasonCode: req.Reason.Code, Passive: true,
	})
	if err != nil {
		return revocation.Answer{Status: revocation.Failed, Err: fmt.Errorf("making the request: %w", err)}
	}
	var sent int
	for first := c.firstContact("asked to revoke"); ; {
		sent, err = c.revokeOnce(ctx, exchange{
			method: http.MethodPost, path: "revoke", body: body, requestID: id, secret: req.Token, limit: maxConfirmation, read: readConfirmation,
		})
		if !first.again(ctx, err) { // nothing was sent
			break
		}
	}
	var answer revocation.Answer
	switch r, refused := asRefusal(err); {
	case err == nil:
		answer.Status = revocation.Revoked
	case refused:
		answer = r.answer(req.Serial)
	case has[*unsentError](err):
		return c.unsent(ctx, err)
	default:
		answer = c.unanswered(err)
	}
	if answer.Next == revocation.FreshToken && sent > 1 {
		answer.Status = revocation.Unknown // perhaps the token was spent by what is said to have gone unseen
	}
	answer.RequestID, answer.Sent = id, sent
	return answer
}

func (c *CA) revokeOnce(ctx context.Context, x exchange) (sent int, err error) {
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.revoking.send(timed, x)
}

func readConfirmation(body io.Reader) error {
	var answer api.RevokeResponse
	if _, err := readJSON(body, &answer); err != nil {
		return err
	}
	if answer.Status != "ok" {
		return badAnswer("its status is %.64q", answer.Status)
	}
	return nil
}

// unsent says what the error means of a revocation of which nothing was sent.
func (c *CA) unsent(ctx context.Context, err error) revocation.Answer {
	failed := revocation.Answer{Status: revocation.Failed, Err: explain(c.url, "asked to revoke", err)}
	switch {
	case has[*tls.CertificateVerificationError](err) || isAlert(err):
		return failed
	case ctx.Err() != nil:
		return revocation.Answer{Status: revocation.NotAttempted, Err: problem.ErrInterrupted, Next: revocation.Reach}
	case c.chains.Load() == nil: // never reached, so perhaps not there at all
		return failed
	}
	return revocation.Answer{Status: revocation.NotAttempted, Err: failed.Err, Next: revocation.Reach}
}

// unanswered says what the error means of a revocation that was sent. From then
// on an error may hide a success.
func (c *CA) unanswered(err error) revocation.Answer {
	switch {
	case has[*redirectError](err), has[*tls.CertificateVerificationError](err), isCertificateAlert(err) && c.presentsCertificate:
		return revocation.Answer{Status: revocation.Failed, Err: explain(c.url, "asked to revoke", err)}
	case has[*badAnswerError](err):
		return unknown(fmt.Errorf("the CA's answer is not a confirmation (%w)", err))
	case isTimeout(err):
		return unknown(fmt.Errorf("no answer within %s", c.timeout))
	case errors.Is(err, context.Canceled):
		return unknown(errors.New("interrupted before the answer"))
	}
	return unknown(fmt.Errorf("the connection ended before the answer: %w", cause(err)))
}

// unknown is the answer to a revocation that may have happened all the same.
func unknown(err error) revocation.Answer {
	return revocation.Answer{Status: revocation.Unknown, Err: err, Next: revocation.Again}
}
