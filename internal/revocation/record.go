package revocation

import (
	"context"
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

// Evidence is what a CA has on record, at one moment.
type Evidence interface {
	// Find returns the record of a certificate, or nil if there is none.
	Find(context.Context, target.Serial) (*Record, error)
	// WhyMissing says why a revoked certificate is not in the CRL, and when it
	// will be.
	WhyMissing() error
	// CRL returns the CRL that others can have, or nil if there is none.
	CRL() *CRL
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
