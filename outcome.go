package main

import (
	"cmp"
	"errors"
	"time"
)

// status is what became of one certificate. DESIGN.md lists the words.
type status string

const (
	statusRevoked        status = "revoked"
	statusAlreadyRevoked status = "already-revoked"
	statusFailed         status = "failed"
	statusUnknown        status = "unknown"
	statusNotAttempted   status = "not-attempted"
	statusPlanned        status = "planned"
)

// done tells whether the certificate is known to be revoked.
func (s status) done() bool { return s == statusRevoked || s == statusAlreadyRevoked }

// An outcome is what is known about one certificate at the end.
type outcome struct {
	target       *target
	status       status
	err          error // why, unless it is revoked now or was before
	attempts     int
	time         time.Time
	requestID    string  // of the last attempt
	authorizedBy string  // who authorized it
	unanswered   bool    // an attempt was sent and got no definite answer
	crlStale     bool    // an attempt failed in a way that can leave the CRL behind
	verified     *bool   // whether it was found on record; nil if nobody looked
	record       *record // what was found
}

func (o *outcome) done() bool { return o.status.done() }

// expired tells whether the certificate is known to have expired so long ago
// that a CRL need not list it.
func (o *outcome) expired() bool {
	return o.target.cert != nil && time.Now().After(o.target.cert.notAfter.Add(crlGrace))
}

// setRecord takes over what is on record, or that nothing is. What a CRL need
// not list, and does not, says nothing.
func (o *outcome) setRecord(r *record) {
	o.record = r
	if r != nil && !o.done() {
		o.status, o.err = statusAlreadyRevoked, nil
	}
	if listed := r != nil && r.listed; listed || !o.expired() {
		o.verified = &listed
	}
}

// An object is the JSON form of an outcome, which the README documents.
type object struct {
	Serial       string   `json:"serial"`
	Status       status   `json:"status"`
	Attempts     int      `json:"attempts"`
	Time         string   `json:"time"`
	ReasonCode   *int     `json:"reasonCode,omitempty"`
	ReasonName   string   `json:"reasonName,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	AuthorizedBy string   `json:"authorizedBy,omitempty"`
	CA           string   `json:"ca"`
	Subject      string   `json:"subject,omitempty"`
	SANs         []string `json:"sans,omitempty"`
	NotAfter     string   `json:"notAfter,omitempty"`
	RequestID    string   `json:"requestId,omitempty"`
	Error        string   `json:"error,omitempty"`
	Verified     *bool    `json:"verified,omitempty"`
}

// object is the JSON form of an outcome of this run.
func (o *outcome) object(opts *options) *object {
	j := &object{
		Serial: o.target.serial.String(), Status: o.status, Attempts: o.attempts, Time: stamp(o.time),
		AuthorizedBy: o.authorizedBy, CA: opts.caName(), Verified: o.verified,
	}
	if !opts.offline {
		j.RequestID = o.requestID // without a CA that answers nobody logs it
	}
	if o.err != nil && !o.done() && !errors.Is(o.err, errPlanned) {
		j.Error = o.err.Error()
	}
	if code, name, text, ok := o.reason(opts); ok {
		j.ReasonCode, j.ReasonName, j.Reason = &code, name, text
	}
	if cert := o.target.cert; cert != nil {
		j.Subject, j.SANs, j.NotAfter = cert.subject, cert.sans, stamp(cert.notAfter)
	}
	return j
}

// reason is the reason on record: what was read, or what the CA has just
// confirmed or would be asked to record.
func (o *outcome) reason(opts *options) (code int, name, text string, ok bool) {
	code, text = opts.reasonCode.code, opts.reason
	switch {
	case o.record != nil && o.status == statusRevoked:
		code, text = o.record.code, cmp.Or(o.record.reason, text) // a CRL has no text
	case o.record != nil:
		code, text = o.record.code, o.record.reason
	case o.status != statusRevoked && o.status != statusPlanned || opts.looks():
		return 0, "", "", false
	}
	return code, reasonName(code), text, true
}

// stamp is a time as people and programs read it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
