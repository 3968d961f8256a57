package main

import (
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// A reason is one CRL reason code of RFC 5280, section 5.3.1.
type reason struct {
	code int
	name string // as RFC 5280 spells it
	when string // when to use it, for the help
}

// reasons are the codes that step-ca accepts and RFC 5280 defines, in the
// order of their numbers. Help and parser are made from this table alone.
var reasons = []reason{
	{0, "unspecified", "no reason given; the default"},
	{1, "keyCompromise", "the private key was, or may be, in wrong hands"},
	{2, "cACompromise", "the key of the CA itself was compromised"},
	{3, "affiliationChanged", "the name or organization is no longer right"},
	{4, "superseded", "another certificate has taken this one's place"},
	{5, "cessationOfOperation", "the host or service was shut down for good"},
	{6, "certificateHold", "suspended; final, step-ca cannot lift a hold"},
	{8, "removeFromCRL", "for lifting a hold; with step-ca it revokes"},
	{9, "privilegeWithdrawn", "the subject has lost the right to it"},
	{10, "aACompromise", "an attribute authority was compromised"},
}

// The two codes whose names promise what step-ca cannot do.
const (
	codeCertificateHold = 6
	codeRemoveFromCRL   = 8
)

// parseReason reads a reason code: its number, or its name in any case, with
// or without spaces, dashes and underscores. Nothing at all is unspecified, as
// in step ca revoke.
func parseReason(s string) (reason, error) {
	word := normalizeReason(s)
	for _, r := range reasons {
		if s == strconv.Itoa(r.code) || word == strings.ToLower(r.name) {
			return r, nil
		}
	}
	if word == "" {
		return reasons[0], nil
	}
	const known = "codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'"
	if n, err := strconv.Atoi(s); err == nil {
		if n == 7 {
			return reason{}, usagef("reason code 7 is not used by RFC 5280").hint(known)
		}
		return reason{}, usagef("reason code %s does not exist", clip(s, 64)).hint(known)
	}
	err := usagef("unknown reason code %q", clip(s, 64))
	if near, ok := nearestReason(word); ok {
		err = err.hint("did you mean %s?", near.name)
	}
	return reason{}, err.hint(known)
}

// reasonName is the name of a code, or its number where there is none.
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

// nearestReason finds the name that word is most likely a misspelling of: one
// that at most a quarter of its letters keep apart.
func nearestReason(word string) (best reason, ok bool) {
	least := 1 << 10
	for _, r := range reasons {
		name := strings.ToLower(r.name)
		if d := levenshtein.ComputeDistance(word, name); d < least && d <= len(name)/4 {
			best, least, ok = r, d, true
		}
	}
	return best, ok
}
