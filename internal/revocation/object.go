package revocation

import (
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
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
	Previous     string   `json:"previousReason,omitempty"`
	AuthorizedBy string   `json:"authorizedBy,omitempty"`
	CA           string   `json:"ca"`
	Root         string   `json:"root,omitempty"`
	Provisioner  string   `json:"provisioner,omitempty"`
	Subject      string   `json:"subject,omitempty"`
	SANs         []string `json:"sans,omitempty"`
	NotBefore    string   `json:"notBefore,omitempty"`
	NotAfter     string   `json:"notAfter,omitempty"`
	RequestID    string   `json:"requestId,omitempty"`
	Error        string   `json:"error,omitempty"`
	Verified     *bool    `json:"verified,omitempty"`
	CRLUsable    *bool    `json:"crlUsable,omitempty"`
}

// Object returns the JSON form of an outcome at the CA with this name and this
// fingerprint of its root.
func (o *Outcome) Object(ca, root string) *Object {
	j := &Object{
		Serial: o.Target.Serial.String(), Status: o.Status, Attempts: o.Attempts, Time: Stamp(o.Time),
		Previous: o.Previous, AuthorizedBy: o.AuthorizedBy, CA: ca, Root: root, RequestID: o.RequestID,
		Verified: o.Verified, CRLUsable: o.CRLUsable,
	}
	if o.Err != nil && !o.Status.Done() {
		j.Error = o.Err.Error()
	}
	if r := o.Reason; r != nil {
		j.ReasonCode, j.ReasonName, j.Reason = &r.Code, r.Name, r.Text
	}
	if cert := o.Target.Cert; cert != nil {
		j.Subject, j.SANs, j.Provisioner = cert.Subject, cert.SANs, cert.Provisioner
		if !cert.NotAfter.IsZero() {
			j.NotBefore, j.NotAfter = Stamp(cert.NotBefore), Stamp(cert.NotAfter)
		}
	}
	return j
}

// maxText bounds the texts in a line that would be too long, in characters.
const maxText = 4000

// MaxReason bounds the free text of a reason that a run may have, in bytes. It is
// not cut: whoever goes on with a plan or a journal must find it whole. Escaped it
// takes six times as much, and with the other texts of a line it stays below
// target.MaxLine.
const MaxReason = 100_000

// Line returns the object as one line of JSON, with its line break. A line that
// this program could not read again has no SANs, and its texts are cut: some of
// the names would look like all of them, and an error is one even if it is cut.
func (j *Object) Line() ([]byte, error) {
	line, err := Line(j)
	if err != nil || len(line) <= target.MaxLine {
		return line, err
	}
	short := *j
	short.SANs = nil
	for _, text := range []*string{&short.AuthorizedBy, &short.CA, &short.Provisioner, &short.Subject, &short.RequestID, &short.Error} {
		*text = Cut(*text)
	}
	if len(short.Reason) > MaxReason { // somebody else's, as the CA has it on record
		short.Reason = Cut(short.Reason)
	}
	return Line(&short)
}

// Cut returns at most maxText characters of a text, and shows that it is cut.
func Cut(text string) string {
	n := 0
	for i := range text {
		if n++; n > maxText {
			return text[:i] + "…"
		}
	}
	return text
}

// Line returns a value as one line of JSON, with its line break. Characters that
// could do anything but appear where they stand are escaped in JSON's own way:
// the data stay what they are.
func Line(value any) ([]byte, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	line := make([]byte, 0, len(plain)+1)
	for _, r := range string(plain) {
		if problem.IsPlain(r) {
			line = utf8.AppendRune(line, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			line = fmt.Appendf(line, `\u%04x`, unit)
		}
	}
	return append(line, '\n'), nil
}
