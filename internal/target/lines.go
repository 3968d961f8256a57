package target

import (
	"fmt"
	"regexp"
)

// A Claim is what a line of our own JSON says about the run that has written it.
type Claim struct {
	Where      string // the line, as errors name it: "plan.json, line 3"
	CA         string // the name of the CA, or empty
	Root       string // the fingerprint of the CA's root, or empty
	Planned    bool   // the line is a plan
	ReasonCode *int   // of a plan; may be nil
	Reason     string // of a plan
}

// planned is the status of a plan, as package revocation writes it.
const planned = "planned"

// takeObject takes one of our own JSON lines. Its serial number counts; whether
// the rest agrees with this run is for Sources.Agree to say.
func (r *reader) takeObject(line []byte) error {
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	var object struct {
		Journal    *int   `json:"journal"`
		Serial     string `json:"serial"`
		Status     string `json:"status"`
		CA         string `json:"ca"`
		Root       string `json:"root"`
		ReasonCode *int   `json:"reasonCode"`
		Reason     string `json:"reason"`
	}
	r.objects++
	if err := ReadObject(line, &object); err != nil {
		return r.badObject(" is not one of our JSON objects", line)
	}
	isHeader := object.Journal != nil // of a journal
	if isHeader && (r.objects > 1 || object.Serial != "") {
		return r.errorAt(r.line, ": the header of a journal is its first line, and names no certificate").Hint(kindHint)
	}
	claim := Claim{Where: fmt.Sprintf("%s, line %d", r.name, r.line), CA: object.CA, Root: object.Root}
	if object.Status == planned && !isHeader {
		claim.Planned, claim.ReasonCode, claim.Reason = true, object.ReasonCode, object.Reason
	}
	if r.sources.Agree != nil {
		if err := r.sources.Agree(claim); err != nil {
			return err
		}
	}
	switch {
	case isHeader:
		return nil
	case object.Serial == "":
		return r.badObject(" has no serial number", line)
	}
	return r.takeSerial(object.Serial)
}

// otherSerial finds the serial number in JSON of other programs.
var otherSerial = regexp.MustCompile(`"(serial_?[nN]umber|SerialNumber)"\s*:`)

// badObject notes a bad line of JSON. If already the first one is bad, the file is
// none of ours.
func (r *reader) badObject(what string, line []byte) error {
	key := "serial_number"
	if found := otherSerial.FindSubmatch(line); found != nil {
		key = string(found[1])
	}
	err := r.errorAt(r.line, what).Hint(kindHint).
		Hint("JSON of other programs is not read: jq -r .%s FILE prints the serial numbers in it, one a line", key)
	if r.objects == 1 {
		return err
	}
	r.wrong(err)
	return nil
}
