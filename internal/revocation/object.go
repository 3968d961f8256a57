package revocation

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// An Object is the JSON form of an outcome, which the README documents.
type Object struct {
	Serial       string   `json:"serial"`
	Status       Status   `json:"status"`
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

// Object returns the JSON form of an outcome at the CA with this name.
func (o *Outcome) Object(ca string) *Object {
	j := &Object{
		Serial: o.Target.Serial.String(), Status: o.Status, Attempts: o.Attempts, Time: Stamp(o.Time),
		AuthorizedBy: o.AuthorizedBy, CA: ca, RequestID: o.RequestID, Verified: o.Verified,
	}
	if o.Err != nil && !o.Status.Done() {
		j.Error = o.Err.Error()
	}
	if r := o.Reason; r != nil {
		j.ReasonCode, j.ReasonName, j.Reason = &r.Code, r.Name, r.Text
	}
	if cert := o.Target.Cert; cert != nil {
		if j.Subject, j.SANs = cert.Subject, cert.SANs; !cert.NotAfter.IsZero() {
			j.NotAfter = Stamp(cert.NotAfter)
		}
	}
	return j
}

// Line returns the object as one line of JSON, with its line break.
func (j *Object) Line() ([]byte, error) { return Line(j) }

// Line returns a value as one line of JSON, with its line break. Characters that
// could do anything but appear are escaped in JSON's own way: the data stay
// what they are.
func Line(value any) ([]byte, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, r := range string(plain) {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}
