package main

import (
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
)

// reasons are the CRL reason codes that step-ca accepts and RFC 5280, section
// 5.3.1, defines, in the order of their numbers. Help and parser are made from
// this table alone.
var reasons = []struct {
	code int
	name string // as RFC 5280 spells it
	when string // when to use it, for the help
}{
	{0, "unspecified", "no reason given; the default"},
	{1, "keyCompromise", "the private key was, or may be, in the wrong hands"},
	{2, "cACompromise", "the key of the CA itself was compromised"},
	{3, "affiliationChanged", "the name or organization is no longer right"},
	{4, "superseded", "another certificate has taken this one's place"},
	{5, "cessationOfOperation", "the host or service was shut down for good"},
	{revocation.CertificateHold, "certificateHold", "suspended, until the CA's host lifts the hold"},
	{revocation.RemoveFromCRL, "removeFromCRL", "lifts a hold, with --offline on the CA's host"},
	{9, "privilegeWithdrawn", "the subject has lost the right to it"},
	{10, "aACompromise", "an attribute authority was compromised"},
}

// parseReason reads a reason code: its number, or its name in any case, with
// or without spaces, dashes and underscores. An empty text is unspecified, as in
// step ca revoke.
func parseReason(s string) (revocation.Reason, error) {
	word := normalizeReason(s)
	for _, r := range reasons {
		if s == strconv.Itoa(r.code) || word == strings.ToLower(r.name) || s == "" {
			return revocation.Reason{Code: r.code, Name: r.name}, nil
		}
	}
	const known = "codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'"
	err := problem.New("unknown reason code %.64q", s)
	if n, notNumber := strconv.Atoi(s); notNumber == nil {
		err = problem.New("reason code %.64s does not exist", s)
		if n == 7 {
			err = problem.New("reason code 7 is not used by RFC 5280")
		}
	} else if near := nearestReason(word); near != "" {
		err = err.Hint("did you mean %s?", near)
	}
	return revocation.Reason{}, err.Hint(known)
}

// parseReasonText takes the free text of a reason, as JSON can have it, if it is not
// so long that a journal could not be read again.
func parseReasonText(s string) (string, error) {
	if len(s) > revocation.MaxReason {
		return "", problem.New("the text of the reason has %d bytes", len(s)).Hint("at most %d are allowed", revocation.MaxReason)
	}
	return strings.ToValidUTF8(s, "\uFFFD"), nil
}

// reasonName is the name of a code, or its number if it has no name.
func reasonName(code int) string {
	for _, r := range reasons {
		if r.code == code {
			return r.name
		}
	}
	return strconv.Itoa(code)
}

// normalizeReason brings a name into the one form that is compared.
func normalizeReason(s string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "", "_", "", "\t", "").Replace(s))
}

// nearestReason is the name that a word is most likely a misspelling of: at most
// a quarter of its letters differ. It is empty if there is no such name.
func nearestReason(word string) (best string) {
	least := 1 << 10
	for _, r := range reasons {
		if d := levenshtein.ComputeDistance(word, strings.ToLower(r.name)); d < least && d <= len(r.name)/4 {
			best, least = r.name, d
		}
	}
	return best
}
