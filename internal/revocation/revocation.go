// Package revocation is one revocation: why, what came of it, and what is on
// record of it.
package revocation

import (
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A Reason is a CRL reason code with its name in RFC 5280, section 5.3.1, and
// free text for the CA's records.
type Reason struct {
	Code       int
	Name, Text string
}

// The codes of holds (RFC 5280, section 5.3.1): a certificate on hold can be revoked
// for another reason, or released.
const (
	CertificateHold = 6
	RemoveFromCRL   = 8 // which asks for a release
)

// String writes the reason for a person.
func (r Reason) String() string {
	if r.Text == "" {
		return r.Name
	}
	return r.Name + " (" + r.Text + ")"
}

// A Status is what became of one certificate.
type Status string

// The words are those of the JSON output and of journals.
const (
	Revoked        Status = "revoked"         // the CA has confirmed this revocation
	AlreadyRevoked Status = "already-revoked" // the CA says that it was revoked before
	Released       Status = "released"        // a hold was lifted
	Failed         Status = "failed"          // the CA has refused it
	Unknown        Status = "unknown"         // it was sent, and no definite answer came
	NotAttempted   Status = "not-attempted"   // the run ended before its turn
	Planned        Status = "planned"         // a dry run
	NotRevoked     Status = "not-revoked"     // a look at the CA's database
	NotListed      Status = "not-listed"      // a look at the CA's CRL
)

// Done tells whether what was asked for is known to be so: the certificate is
// revoked, or released.
func (s Status) Done() bool { return s == Revoked || s == AlreadyRevoked || s == Released }

// Open tells whether somebody has looked and not found the certificate revoked.
func (s Status) Open() bool { return s == NotRevoked || s == NotListed }

// A Request asks a CA for one revocation.
type Request struct {
	Serial target.Serial
	Token  string // empty where the connection is the proof
	Reason Reason
}

// An Answer is how one attempt has ended.
type Answer struct {
	Status    Status
	Err       error         // why, unless the certificate is revoked
	Sent      int           // how often the request was sent, if that is more than once
	Cause     string        // Err without what differs from one attempt to the next, if that is other text
	RequestID string        // the ID under which the CA logs the request
	Next      Next          // what may help, unless the certificate is revoked
	After     time.Duration // how long the CA asks to wait before the next attempt, or 0
	Held      bool          // the certificate was on hold until then
	StaleCRL  bool          // the CA may have stored the revocation and then failed to build its CRL
	Record    *Record       // what is on record, if somebody has looked
}

// Next is what may help after an attempt that has failed.
type Next int

const (
	Nothing    Next = iota // no attempt can succeed: the run ends
	Others                 // the refusal may be about this certificate alone
	Alone                  // it is, however many are refused
	Again                  // the failure may be transient
	FreshToken             // the token may be older than the CA
	Reach                  // nothing was sent: wait until the CA can be reached
)

// An Outcome is what is known about one certificate at the end.
type Outcome struct {
	Target       *target.Target
	Answer                 // to the last attempt
	Reason       *Reason   // on record, as far as that is known
	Attempts     int       // requests that were sent
	Time         time.Time // of the end
	AuthorizedBy string
	Previous     string // the reason that was on record before, by its name in RFC 5280
	Unanswered   bool   // an attempt was sent and got no definite answer
	Verified     *bool  // whether it was found in the CRL; nil if nobody looked, or a CRL need not list it
	CRLUsable    *bool  // whether OpenSSL can use that CRL for it; nil if that is not known
}
