package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/smallstep/cli-utils/step"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/journal"
	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A choice is what a run is about. All but the list came of a query of the CA's
// database.
type choice struct {
	list    target.List            // what was asked for, and is to be acted on
	others  target.List            // all others that match
	before  []target.Target        // of these, what --verify looks up: it was revoked before
	looked  int                    // certificates in the database
	good    int                    // those that match and can still do harm
	revoked map[target.Serial]bool // those that match and are revoked
	expired int                    // those that match, are not revoked, and cannot be renewed any more
	corrupt []string               // the first records that cannot be read, and why
	broken  int                    // how many there are
	records records                // of a mere look; else nil
}

// records are what the CA's database has on record of what is revoked.
type records map[target.Serial]*revocation.Record

// maxNamed is how many corrupt records, or certificates that a warning is about,
// are named.
const maxNamed = 5

// A match is a certificate that a query asks for, or a record that is corrupt.
type match struct {
	serial           target.Serial
	cert             *target.Certificate
	revoked, expired bool
	corrupt          string
}

// A search is a query of the CA's database, while that is open.
type search struct {
	*database.Snapshot
	query   target.Query
	renewal *offline.Renewal
	looked  atomic.Int64 // certificates in the database
}

// newSearch opens the CA's database, or a copy of it, if the CA has it open.
func newSearch(ctx context.Context, o *options) (*search, error) {
	snapshot, err := database.Read(ctx, o.settings.CA.DB, database.Reading{
		Beside: o.offline == nil, Quiet: !ui.Debugging(), Timeout: o.timeout(),
	})
	if err != nil {
		return nil, withCommand(err)
	}
	renewal, err := o.settings.Renewal(ctx, snapshot.DB())
	if err != nil {
		return nil, errors.Join(err, snapshot.Close())
	}
	return &search{Snapshot: snapshot, renewal: renewal}, nil
}

// matches yields what the query asks for, and what cannot be read.
func (s *search) matches(ctx context.Context) iter.Seq2[match, error] {
	return database.Map(ctx, s.Snapshot, func(i *database.Issued) (match, bool) {
		s.looked.Add(1)
		return s.look(i)
	})
}

// look looks at one certificate of the database.
func (s *search) look(i *database.Issued) (m match, keep bool) {
	cert, provisioner, err := s.query.Look(i.Serial, i.DER, func() (string, error) { _, name, err := i.Provisioner(); return name, err })
	if cert == nil && err == nil {
		return match{}, false
	}
	if err == nil {
		m.revoked, m.cert = i.Revoked, target.CertificateOf(cert)
		m.cert.Provisioner = provisioner
		m.serial, _ = target.SerialOf(cert.SerialNumber)
		if !m.revoked && time.Now().After(cert.NotAfter) {
			var id string
			id, _, err = i.Provisioner()
			m.expired = !s.renewal.AfterExpiry(cert, id)
		}
	}
	if err != nil {
		return match{corrupt: fmt.Sprintf("%.64s: %v", i.Serial, err)}, true
	}
	return m, true
}

// choose takes the certificates that a query asks for from the CA's database: all
// that are not revoked and not expired, or can be renewed all the same. A mere look
// is at those that are revoked, too, and a release is of those that are on hold.
func choose(ctx context.Context, o *options, query target.Query) (c *choice, err error) {
	s, err := newSearch(ctx, o)
	if err != nil {
		return nil, problem.Default(err, problem.Failed)
	}
	defer func() { err = problem.Default(errors.Join(err, s.Close()), problem.Failed) }()
	s.query = query
	c = &choice{revoked: map[target.Serial]bool{}}
	for m, err := range s.matches(ctx) {
		if err != nil {
			return nil, err
		}
		c.add(o, m)
	}
	c.looked = int(s.looked.Load())
	switch {
	case o.looksOnly() && o.offline == nil: // offline the database is asked later
		err = c.readRecords(s.DB())
	case o.releases():
		err = c.takeHolds(s.DB())
	}
	if err != nil {
		return nil, err
	}
	return c, c.sayStrays(ctx, s.Snapshot)
}

// add counts a match, and puts it where it belongs.
func (c *choice) add(o *options, m match) {
	wanted := o.looksOnly()
	switch {
	case m.corrupt != "":
		if c.broken++; c.broken <= maxNamed {
			c.corrupt = append(c.corrupt, m.corrupt)
		}
		return
	case m.revoked:
		c.revoked[m.serial] = true
	case m.expired:
		c.expired++
		wanted = false
	default:
		c.good++
		wanted = wanted || !o.releases()
	}
	if wanted {
		c.list.Add(m.serial, m.cert)
	} else {
		c.others.Add(m.serial, m.cert)
	}
}

// takeHolds chooses what is on hold.
func (c *choice) takeHolds(from *database.DB) (err error) {
	c.others.Keep(func(t target.Target) bool {
		if err != nil {
			return true
		}
		record, readErr := from.Revocation(t.Serial.String())
		if readErr != nil {
			err = readErr
		}
		held := record != nil && record.ReasonCode == revocation.CertificateHold
		if held {
			c.list.Add(t.Serial, t.Cert)
		}
		return !held
	})
	return err
}

// readRecords reads what is on record of what is revoked.
func (c *choice) readRecords(from *database.DB) error {
	c.records = records{}
	for serial := range c.revoked {
		record, err := from.Revocation(serial.String())
		if err != nil {
			return err
		}
		if record != nil {
			c.records[serial] = &revocation.Record{Code: &record.ReasonCode, Text: record.Reason, Time: record.RevokedAt}
		}
	}
	return nil
}

// keepBefore keeps what was revoked before, but not by the run that this one goes on
// with, for --verify to look up.
func (c *choice) keepBefore() {
	for _, t := range c.others.All {
		if c.revoked[t.Serial] && !t.Done {
			c.before = append(c.before, t)
		}
	}
}

// sayStrays warns about records of revocations that revoke nothing: their keys are
// no serial numbers in decimal. It names those that are about the certificates
// that were chosen.
func (c *choice) sayStrays(ctx context.Context, snapshot *database.Snapshot) error {
	n, keys, err := snapshot.Strays(ctx)
	if err != nil || n == 0 {
		return err
	}
	ui.Warn("%s nothing: step-ca before 0.22 accepted any text as a serial number",
		ui.Count(n, "record of a revocation in the CA's database revokes", "records of revocations in the CA's database revoke"))
	named := 0
	for _, key := range keys {
		serial, ok := meantBy(key)
		if _, chosen := c.list.Find(serial); !ok || !chosen || c.revoked[serial] {
			continue
		}
		if named++; named > maxNamed {
			ui.Warn("more of these records are about certificates that match")
			break
		}
		ui.Warn("the record %.64q is about serial number %s, which is not revoked", key, serial)
	}
	return nil
}

// meantBy returns the serial number that a record of a revocation most likely
// means: a hexadecimal one, or a decimal one with zeros before it.
func meantBy(key string) (target.Serial, bool) {
	digits, base := strings.NewReplacer(":", "", "-", "", " ", "").Replace(strings.TrimSpace(key)), 16
	if bare := strings.TrimLeft(digits, "0"); digits == key && strings.Trim(bare, "0123456789") == "" {
		digits, base = bare, 10
	}
	if len(digits) > 64 {
		return target.Serial{}, false
	}
	number, ok := new(big.Int).SetString(strings.TrimPrefix(strings.ToLower(digits), "0x"), base)
	if !ok {
		return target.Serial{}, false
	}
	return target.SerialOf(number)
}

// readChosen reads what is to be revoked from the CA's database. A run that goes
// on with a journal asks what the run asked that has begun it, and has what that
// run has done on its list, too.
func readChosen(ctx context.Context, o *options) (*choice, error) {
	query, goesOn := o.query, false
	if !o.looksOnly() {
		err := readJournal(ctx, o, &target.List{}, func(h *journal.Header) (err error) {
			goesOn = true
			query, err = o.sameQuestion(h)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	c, err := choose(ctx, o, query)
	if err != nil {
		return nil, err
	}
	if goesOn {
		if err := readJournal(ctx, o, &c.others, func(*journal.Header) error { return nil }); err != nil {
			return nil, err
		}
		for _, t := range c.others.All {
			if t.Done {
				c.list.Add(t.Serial, t.Cert)
			}
		}
	}
	if o.verify && !o.releases() {
		c.keepBefore()
	}
	return c, problem.Default(c.check(o), problem.Failed)
}

// readJournal marks what a journal says is done, if there is one. It is locked, and
// read once more, when it is opened to be written.
func readJournal(ctx context.Context, o *options, list *target.List, agree func(*journal.Header) error) error {
	j, err := journal.Open(ctx, o.journal, true, list, agree, nil)
	return errors.Join(err, j.Close())
}

// check says what a query has found, and refuses to go on with nothing, or
// without knowing everything.
func (c *choice) check(o *options) error {
	if c.broken > 0 {
		text := ui.Count(c.broken, "record", "records") + " of the CA's database cannot be read: serial number " + strings.Join(c.corrupt, "; serial number ")
		if c.broken > len(c.corrupt) {
			text += "; and others"
		}
		if !o.allowUnknown {
			return problem.New("%s", text).Hint("--allow-unknown continues without these certificates, and does not revoke them")
		}
		ui.Warn("%s", text)
	}
	matching := len(c.revoked) + c.expired + c.good
	if matching == 0 {
		return problem.New("no certificate matches; looked at %s", ui.Count(c.looked, "certificate", "certificates")).
			Hint("names are compared as a whole: *.example.com is the wildcard certificate, not the hosts")
	}
	ui.Selected("Where", strings.Join(o.query.Terms(), ", "))
	left := ""
	switch {
	case o.looksOnly():
	case o.releases():
		left = "; " + ui.Number(len(c.list.All)) + " on hold"
	default:
		left = "; " + ui.Number(c.good) + " to be revoked"
	}
	ui.Say("Looked at %s: %s, %s of them revoked, %s expired%s", ui.Count(c.looked, "certificate", "certificates"),
		ui.Count(matching, "matches", "match"), ui.Number(len(c.revoked)), ui.Number(c.expired), left)
	switch empty := len(c.list.All)+len(c.before) == 0; {
	case empty && o.looksOnly():
		return problem.New("there is nothing to look up: what matches has expired, and was not revoked")
	case empty && o.verify:
		ui.Warn("there is nothing to verify: no certificate that matches is %s", map[bool]string{true: "on hold", false: "revoked"}[o.releases()])
	}
	return nil
}

// sayBeside warns about certificates that are still good and have the key of one
// that was revoked: its renewals, most likely. It takes one pass over the CA's
// database, which this run has closed by now, and only where somebody has named
// few certificates one by one.
func (r *report) sayBeside(ctx context.Context) (err error) {
	o := r.options
	if o.offline == nil || o.dryRun || len(o.targets.From) > 0 || o.query.IsSet() || r.counts[revocation.Revoked] == 0 || r.many() || ctx.Err() != nil {
		return nil
	}
	s, err := newSearch(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var terms []string
	for _, t := range r.list.All {
		der, err := s.Certificate(t.Serial.String())
		if err != nil {
			return err
		}
		if cert, err := x509.ParseCertificate(der); err == nil {
			terms = append(terms, target.KeyTerm(cert))
		}
	}
	if s.query, err = target.ParseQuery(ctx, terms, "", time.Now()); err != nil || !s.query.IsSet() {
		return err
	}
	var good []string
	for m, err := range s.matches(ctx) {
		if err != nil {
			return err
		}
		if m.corrupt == "" && !m.revoked && !m.expired {
			good = append(good, m.serial.String())
		}
	}
	if len(good) > 0 {
		shown := strings.Join(good[:min(len(good), maxNamed)], ", ")
		if len(good) > maxNamed {
			shown += ", …"
		}
		ui.Warn("%s the key of a revoked one, and %s still valid: %s", ui.Count(len(good), "other certificate has", "other certificates have"), isOrAre(len(good)), shown)
		command := "step revoke --offline --where " + strings.Join(s.query.Terms(), " --where ")
		if o.configFile != filepath.Join(step.BasePath(), "config", "ca.json") {
			command += " --ca-config " + shellQuote(o.configFile)
		}
		ui.Hint(command + " revokes what has the same key")
	}
	return nil
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
