package offline

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/errs"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// Revoke waits for a database server until the timeout or the end of ctx. It
// waits for files whatever ctx says, because they are about to be closed.
func (ca *CA) Revoke(ctx context.Context, req revocation.Request) revocation.Answer {
	if ca.inFiles() {
		return ca.answer(ca.record(context.WithoutCancel(ctx), req))
	}
	ctx, cancel := context.WithTimeout(ctx, ca.config.Timeout)
	defer cancel()
	done := make(chan error, 1)
	ca.sent.Go(func() { done <- ca.record(context.WithoutCancel(ctx), req) })
	select {
	case err := <-done:
		return ca.answer(err)
	case <-ctx.Done():
		ca.staleCRL.Store(true) // the revocation may still happen
		return revocation.Answer{Status: revocation.Unknown, Err: errors.New("no answer of the CA's database"), Next: revocation.Again}
	}
}

// record does what step-ca does for a request (api/revoke.go, Revoke).
func (ca *CA) record(ctx context.Context, req revocation.Request) error {
	ctx = provisioner.NewContextWithMethod(ctx, provisioner.RevokeMethod)
	opts := &authority.RevokeOptions{
		Serial: req.Serial.String(), Reason: req.Reason.Text, ReasonCode: req.Reason.Code, PassiveOnly: true, OTT: req.Token,
	}
	if req.Token == "" {
		opts.MTLS, opts.Crt = true, ca.client
	} else if _, err := ca.authority.Authorize(ctx, req.Token); err != nil {
		return err
	}
	return ca.authority.Revoke(ctx, opts)
}

// answer turns the error of record into an answer.
func (ca *CA) answer(err error) revocation.Answer {
	a := answerTo(err, ca.inFiles())
	if a.Status.Done() {
		ca.staleCRL.Store(true)
	}
	return a
}

// answerTo says what an error of the authority means. The texts and codes are
// those of step-ca's authority/tls.go, Authority.Revoke.
func answerTo(err error, inFiles bool) revocation.Answer {
	if err == nil {
		return revocation.Answer{Status: revocation.Revoked}
	}
	code := 0
	if refusal := (*errs.Error)(nil); errors.As(err, &refusal) {
		code = refusal.Status
	}
	switch {
	case code == http.StatusBadRequest && strings.Contains(err.Error(), "is already revoked"):
		return revocation.Answer{Status: revocation.AlreadyRevoked}
	case code == http.StatusInternalServerError && !inFiles: // under load some errors of a server are transient
		return revocation.Answer{Status: revocation.Unknown, Err: err, Next: revocation.Again}
	case code == http.StatusUnauthorized:
		return revocation.Answer{Status: revocation.Failed, Err: err, Next: revocation.FreshToken}
	case code >= http.StatusBadRequest && code < http.StatusInternalServerError:
		return revocation.Answer{Status: revocation.Failed, Err: err, Next: revocation.Others}
	}
	return revocation.Answer{Status: revocation.Failed, Err: err, Next: revocation.Nothing}
}
