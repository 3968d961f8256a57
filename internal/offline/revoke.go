package offline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/certificates/errs"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// Revoke waits for a database server until the timeout or the end of ctx. It
// waits for files whatever ctx says, because they are about to be closed.
func (ca *CA) Revoke(ctx context.Context, req revocation.Request) revocation.Answer {
	record := ca.record
	if ca.config.ByHost {
		record = ca.recordByHost
	}
	if ca.inFiles() {
		return ca.answer(req.Serial, record(context.WithoutCancel(ctx), req))
	}
	ctx, cancel := context.WithTimeout(ctx, ca.config.Timeout)
	defer cancel()
	done := make(chan error, 1)
	ca.sent.Go(func() { done <- record(context.WithoutCancel(ctx), req) })
	select {
	case err := <-done:
		return ca.answer(req.Serial, err)
	case <-ctx.Done():
		ca.staleCRL.Store(true) // the revocation may still happen
		return revocation.Answer{Status: revocation.Unknown, Err: errors.New("no answer from the CA's database"), Next: revocation.Again}
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

// recordByHost stores what step-ca stores for a request (authority/tls.go,
// Authority.Revoke), but for the provisioner and the token, of which there are
// none.
func (ca *CA) recordByHost(_ context.Context, req revocation.Request) error {
	info := &db.RevokedCertificateInfo{
		Serial: req.Serial.String(), ReasonCode: req.Reason.Code, Reason: req.Reason.Text, RevokedAt: time.Now().UTC(),
	}
	cert, err := ca.store.GetCertificate(info.Serial)
	switch {
	case err == nil:
		info.ExpiresAt = cert.NotAfter
	case !nosql.IsErrNotFound(err):
		return errs.Wrap(http.StatusInternalServerError, err, "looking up the certificate")
	}
	if err := ca.store.Revoke(info); err != nil {
		return errs.Wrap(http.StatusInternalServerError, err, "storing the revocation")
	}
	return nil
}

// answer turns the error of record into an answer.
func (ca *CA) answer(serial target.Serial, err error) revocation.Answer {
	a := answerTo(serial, err, ca.inFiles())
	if a.Status.Done() || a.Status == revocation.Unknown {
		ca.staleCRL.Store(true)
	}
	return a
}

// answerTo says what an error of the authority means. The texts and codes are
// those of step-ca's authority/tls.go, Authority.Revoke.
func answerTo(serial target.Serial, err error, inFiles bool) revocation.Answer {
	if err == nil {
		return revocation.Answer{Status: revocation.Revoked}
	}
	if end := (*lifted)(nil); errors.As(err, &end) {
		return revocation.Answer{Status: end.status, Held: true}
	}
	if r := (*refusal)(nil); errors.As(err, &r) {
		return revocation.Answer{Status: revocation.Failed, Err: r, Next: revocation.Alone}
	}
	code, text := 0, ""
	if refusal := (*errs.Error)(nil); errors.As(err, &refusal) {
		code, text = refusal.Status, refusal.Error()
	}
	a := revocation.Answer{Status: revocation.Failed, Err: problem.Cleaned(err), Cause: problem.Clean(cause(serial, err), "")}
	switch {
	case errors.Is(err, db.ErrAlreadyExists), code == http.StatusBadRequest && text == fmt.Sprintf("certificate with serial number '%s' is already revoked", serial):
		return revocation.Answer{Status: revocation.AlreadyRevoked}
	case code == http.StatusInternalServerError && !inFiles: // under load some errors of a server are transient
		a.Status, a.Next = revocation.Unknown, revocation.Again
	case code == http.StatusUnauthorized:
		a.Next = revocation.FreshToken
	case code >= http.StatusBadRequest && code < http.StatusInternalServerError:
		a.Next = revocation.Others
	}
	return a
}

// differs matches what differs between two attempts in the errors of databases:
// the ID of a token behind its table (db/db.go, usedOTTTable), and our own end of
// a connection.
var differs = regexp.MustCompile(`(\bused_ott\W+)\w+|(\btcp )\S+(->)`)

// cause is what an error of the authority comes down to, without what differs
// from one attempt to the next: a summary counts it once.
func cause(serial target.Serial, err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if _, isNumber := inner.(syscall.Errno); !isNumber { // alone it says too little
			err = inner
		}
	}
	text := strings.ReplaceAll(err.Error(), serial.String(), "…")
	return differs.ReplaceAllString(text, "${1}${2}…${3}")
}
