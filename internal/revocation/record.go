package revocation

import (
	"context"
	"errors"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A Record is what is on record about a revoked certificate.
type Record struct {
	Code   *int   // the reason code; nil where the record does not say
	Text   string // the reason in free text, which CRLs do not have
	Time   time.Time
	Listed bool // in the CRL, where others find it
}

// IsHold tells whether the certificate is on hold, as far as the record says.
func (r *Record) IsHold() bool { return r != nil && r.Code != nil && *r.Code == CertificateHold }

// Evidence is what a CA has on record, at one moment.
type Evidence interface {
	// Find returns the record of a certificate, or nil if there is none.
	Find(context.Context, target.Serial) (*Record, error)
	// WhyMissing says why a revoked certificate is not in the CRL, and when it
	// will be.
	WhyMissing() error
	// CRL returns the CRL that others can have, or nil if there is none.
	CRL() *CRL
	// Cleared returns nil if no CRL has the certificate any more, or else why it
	// is not known to be gone.
	Cleared(target.Serial) error
}

// crlGrace is how long after its expiry step-ca keeps a certificate in its CRL
// (authority/config, DefaultCRLExpiredDuration).
const crlGrace = time.Hour

// SetFit takes over whether OpenSSL can use the CRL for the certificate, if that is
// at hand.
func (o *Outcome) SetFit(crl *CRL) (fit Fit, atHand bool, err error) {
	scope, known := o.Target.Cert.Scope()
	if crl == nil || !known {
		return fit, false, nil
	}
	if fit, err = crl.Fit(scope, o.Record != nil && o.Record.Listed); err == nil {
		usable := fit.Error == ""
		o.CRLUsable = &usable
	}
	return fit, true, err
}

// SetReleased takes over what is on record of a certificate that was released, and
// why it may still be in the CRL. A record means that it was revoked once more.
func (o *Outcome) SetReleased(r *Record, listed error) {
	cleared := r == nil && listed == nil
	o.Verified = &cleared
	if r != nil {
		o.Previous = ""
		o.Answer = Answer{Status: Failed, Err: errors.New("it was revoked again after it had been released")}
	}
	o.Record = r
}

// SetRecord takes over what is on record, or that nothing is. An expired
// certificate that the CRL omits is left unverified.
func (o *Outcome) SetRecord(r *Record) {
	o.Record = r
	if r != nil && !o.Status.Done() {
		o.Status, o.Err = AlreadyRevoked, nil
	}
	cert := o.Target.Cert
	expired := cert != nil && !cert.NotAfter.IsZero() && time.Now().After(cert.NotAfter.Add(crlGrace))
	if listed := r != nil && r.Listed; listed || !expired {
		o.Verified = &listed
	}
}
