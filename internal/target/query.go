package target

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A Property is what certificates are chosen by.
type Property struct {
	Name  string
	Value string // the word that stands for its value in the help
	Usage string
	read  func(q *questions, value string) (condition, error)
}

// Properties are all that a query may name. Help and parser are made from this
// table.
var Properties = []Property{
	{"san", "name", `with this subject alternative name: a DNS name, an IP address, an e-mail
address or a URI. *.example.com is the wildcard certificate, not the hosts`, (*questions).readSAN},
	{"subject", "name", `with this common name`, (*questions).readSubject},
	{"key", "file", `with the public key in this file, which is a certificate, a CSR, or a
public or private key. A renewed certificate keeps its key`, (*questions).readKey},
	{"provisioner", "name", `issued by the provisioner with this name`, (*questions).readProvisioner},
	{"issued-after", "time", `whose notBefore is this time or later; step-ca sets it a minute back`, (*questions).readAfter},
	{"issued-before", "time", `whose notBefore is before this time`, (*questions).readBefore},
}

// A Query chooses certificates by what they are. Of conditions on one property
// any must hold, and of those on different properties all. The zero value chooses
// nothing.
type Query struct {
	properties [][]condition // each of one property
	now        time.Time     // from which durations are counted back
}

// A condition holds for some certificates.
type condition struct {
	text string // as a journal keeps it
	// quick spares most certificates a full look: it is true for every certificate
	// for which the condition holds, and for some others.
	quick func(r record, now time.Time) bool
	holds func(cert *x509.Certificate, provisioner string, now time.Time) bool
}

// questions are what reading a query takes.
type questions struct {
	ctx          context.Context
	passwordFile string // of encrypted keys; empty: the password is asked for
	now          time.Time
	after        time.Time // the earliest bound of issued-after, or zero
	before       time.Time // the latest bound of issued-before, or zero
}

// ParseQuery reads terms like san=db1.example.com. Durations are counted back
// from now. An encrypted key takes the password in a file, or asks for it.
func ParseQuery(ctx context.Context, terms []string, passwordFile string, now time.Time) (Query, error) {
	q := questions{ctx: ctx, passwordFile: passwordFile, now: now}
	byProperty := map[string][]condition{}
	for _, term := range terms {
		name, value, hasValue := strings.Cut(term, "=")
		i := slices.IndexFunc(Properties, func(p Property) bool { return p.Name == name })
		switch {
		case i < 0:
			return Query{}, noProperty(name)
		case !hasValue || value == "":
			return Query{}, problem.New("--where %s has no value", name).Hint("write --where %s=%s", name, strings.ToUpper(Properties[i].Value))
		case strings.TrimSpace(value) != value:
			return Query{}, problem.New("the value of --where %s begins or ends with white space", name)
		}
		c, err := Properties[i].read(&q, value)
		if err != nil {
			return Query{}, problem.Wrap(err, "--where %s", name)
		}
		c.text = name + "=" + c.text
		byProperty[name] = append(byProperty[name], c)
	}
	if !q.after.IsZero() && !q.before.IsZero() && !q.after.Before(q.before) {
		return Query{}, problem.New("no certificate is issued at %s or later and before %s", stamp(q.after), stamp(q.before)).
			Hint("--where issued-after and issued-before must leave time between them")
	}
	query := Query{now: now}
	for _, p := range Properties {
		if conditions := byProperty[p.Name]; conditions != nil {
			query.properties = append(query.properties, conditions)
		}
	}
	return query, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// noProperty returns the error for a misspelt property.
func noProperty(name string) error {
	err := problem.New("--where knows no property %.64q", name)
	word, nearest, least := fmt.Sprintf("%.64s", strings.ToLower(name)), "", 1<<10
	var names []string
	for _, p := range Properties {
		names = append(names, p.Name)
		if d := levenshtein.ComputeDistance(word, p.Name); d < least && d <= max(2, len(p.Name)/3) {
			nearest, least = p.Name, d
		}
	}
	if nearest != "" {
		err = err.Hint("did you mean %s?", nearest)
	}
	return err.Hint("properties are: %s", strings.Join(names, ", "))
}

// IsSet tells whether the query asks for anything.
func (q Query) IsSet() bool { return q.properties != nil }

// At returns the query with durations that are counted back from another time.
func (q Query) At(now time.Time) Query {
	q.now = now
	return q
}

// Terms returns the query in a form that is the same for every way of writing
// it. Durations stay what they are, and files are the keys in them.
func (q Query) Terms() (terms []string) {
	for _, conditions := range q.properties {
		var of []string
		for _, c := range conditions {
			of = append(of, c.text)
		}
		slices.Sort(of)
		terms = append(terms, slices.Compact(of)...)
	}
	return terms
}

// Match tells whether a certificate is one that the query asks for. The name of
// its provisioner may come from elsewhere than the certificate.
func (q Query) Match(cert *x509.Certificate, provisioner string) bool {
	return q.all(func(c condition) bool { return c.holds(cert, provisioner, q.now) })
}

// mayMatch tells whether a certificate is worth a full look.
func (q Query) mayMatch(r record) bool {
	return q.all(func(c condition) bool { return c.quick(r, q.now) })
}

// all tells whether a condition on each of the properties passes.
func (q Query) all(passes func(condition) bool) bool {
	for _, conditions := range q.properties {
		if !slices.ContainsFunc(conditions, passes) {
			return false
		}
	}
	return q.IsSet()
}
