package offline

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A store is the CA's database as the authority sees it. A CRL takes the place
// of the very CRL that was read before it was built: step-ca overwrites whatever
// is there, and with it what only a CRL of a running CA has (authority/tls.go,
// GenerateCertificateRevocationList).
type store struct {
	*db.DB
	database *database.DB  // the same
	room     database.Room // that a CRL has
	read     []byte        // the record of the CRL that was read last; nil: there was none
	written  []byte        // that of the one that was stored last
	number   int64         // its number, or -1
}

// The table and the key of the CRL (db/db.go, crlTable and crlKey).
var crlTable, crlKey = []byte("x509_crl"), []byte("crl")

// errOvertaken says that another CRL was stored while this one was built.
var errOvertaken = errors.New("a running CA has stored another CRL meanwhile")

// GetCRL reads the CRL, and remembers it for StoreCRL.
func (s *store) GetCRL() (*db.CertificateRevocationListInfo, error) {
	var err error
	s.read, err = s.Get(crlTable, crlKey)
	if err != nil {
		return nil, err
	}
	info := &db.CertificateRevocationListInfo{}
	if err := json.Unmarshal(s.read, info); err != nil {
		return nil, fmt.Errorf("reading the record of the CRL: %w", err)
	}
	info.Number = max(info.Number, s.number) // the next one is higher than both
	return info, nil
}

// StoreCRL stores a CRL in the place of the one that was read. Its error may be
// errOvertaken or a tooLarge.
func (s *store) StoreCRL(info *db.CertificateRevocationListInfo) error {
	record, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := checkFits(int64(len(record)), s.room); err != nil {
		return err
	}
	_, swapped, err := s.CmpAndSwap(crlTable, crlKey, s.read, record)
	if err == nil && !swapped {
		err = errOvertaken
	}
	if err == nil {
		s.written, s.number = record, info.Number
	}
	return err
}

// buildCRL builds and stores one CRL with everything that is revoked, if the one
// in the database may be out of date.
func (ca *CA) buildCRL(ctx context.Context) error {
	if !ca.settings.CA.CRL.IsEnabled() || !ca.staleCRL.Swap(false) { // which is set once the CA is open
		return nil
	}
	err := ca.noSigner
	if err == nil {
		ca.running.CRL = ca.settings.CA.CRL // where the authority looks it up
		err = ca.publish(ctx)
	}
	if err != nil {
		return ca.noCRL(err)
	}
	ui.Say("The CRL was rebuilt.")
	return nil
}

const (
	maxBuilds = 10                     // of one CRL, beside a running CA
	minStay   = 500 * time.Millisecond // see publish
)

// publish builds and stores a CRL, again until the one in the database has
// everything that is revoked now under a number of its own. Beside a running CA
// one build is not enough: a CRL that the CA has begun before, without what we
// have revoked and with the same number, may take the place of ours. So ours must
// stay for twice as long as it took to build.
func (ca *CA) publish(ctx context.Context) error {
	start := time.Now()
	for range maxBuilds {
		began := time.Now()
		err := ca.finish(ca.crlBy, ca.authority.GenerateCertificateRevocationList)
		switch {
		case ca.inFiles() || err != nil && !errors.Is(err, errOvertaken):
			return err
		case err == nil:
			select {
			case <-time.After(max(minStay, 2*time.Since(began))):
			case <-ctx.Done():
			}
		}
		var current bool
		err = ca.finish(ca.crlBy, func() (err error) {
			current, err = ca.isCurrent(start)
			return err
		})
		if err != nil || current {
			return err
		}
	}
	return fmt.Errorf("another CRL has taken the place of ours %d times, and lacks what is revoked", maxBuilds)
}

// isCurrent tells whether the CRL in the database is the one that was stored
// last, or one of a running CA that has a higher number, everything that was
// revoked before this time, and nothing that is on record no more or with another
// reason.
func (ca *CA) isCurrent(before time.Time) (bool, error) {
	info, err := ca.store.GetCRL()
	switch {
	case nosql.IsErrNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the CRL again: %w", err)
	case bytes.Equal(ca.store.read, ca.store.written):
		return true, nil
	case info.Number <= ca.store.number:
		return false, nil
	}
	list, err := x509.ParseRevocationList(info.DER)
	if err != nil {
		return false, fmt.Errorf("reading the CRL again: %w", err)
	}
	revoked, err := ca.store.GetRevokedCertificates()
	if err != nil {
		return false, fmt.Errorf("reading what is revoked: %w", err)
	}
	return agrees(list, *revoked, before), nil
}

// agrees tells whether a CRL has what was revoked before this time, with the reasons
// on record, and nothing that is not on record: that was released.
func agrees(list *x509.RevocationList, revoked []db.RevokedCertificateInfo, before time.Time) bool {
	listed := make(map[string]int, len(list.RevokedCertificateEntries)) // the reasons
	for _, e := range list.RevokedCertificateEntries {
		listed[e.SerialNumber.String()] = e.ReasonCode
	}
	onRecord := make(map[string]bool, len(revoked))
	for _, r := range revoked {
		var serial big.Int
		_, isNumber := serial.SetString(r.Serial, 10) // step-ca lists what this makes of old records that are none
		onRecord[serial.String()] = true
		code, found := listed[serial.String()]
		lacks := !found && !isExpired(r.ExpiresAt)
		another := found && code != 0 && code != r.ReasonCode // step-ca lists no reasons before 0.30
		if isNumber && r.RevokedAt.Before(before) && (lacks || another) {
			return false
		}
	}
	for serial := range listed {
		if !onRecord[serial] {
			return false
		}
	}
	return true
}

// isExpired tells whether step-ca leaves a certificate out of its CRL: an hour
// after its end, if that is known (authority/tls.go,
// GenerateCertificateRevocationList).
func isExpired(notAfter time.Time) bool {
	return !notAfter.IsZero() && time.Since(notAfter) > config.DefaultCRLExpiredDuration
}

// rebuildHint is for what a CRL lacks.
const rebuildHint = "step-ca rebuilds the CRL when it starts"

// noCRL returns the problem that a CRL was to be rebuilt and could not be.
func (ca *CA) noCRL(err error) error {
	if errors.Is(err, problem.ErrInterrupted) { // which would say less
		err = fmt.Errorf("it was not ready %s after the signal", crlGrace)
	}
	errors.As(err, &ca.overflow)
	return problem.WithCode(problem.Incomplete, "the CRL was not rebuilt: %w", err).Hint("%s", ca.crlHint())
}

// crlHint says what becomes of a CRL that lacks something.
func (ca *CA) crlHint() string {
	if ca.overflow != nil {
		return ca.overflow.hint()
	}
	return rebuildHint
}
