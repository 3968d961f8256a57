package offline

import (
	"context"
	"fmt"

	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// Evidence is the CA's database, and the CRL in it, which is built before. A CRL
// that cannot be read is no error here: WhyMissing tells.
func (ca *CA) Evidence(ctx context.Context) (revocation.Evidence, error) {
	crl, err := ca.storedCRL(ctx)
	if ca.abandoned {
		return nil, err
	}
	return &evidence{ca: ca, crl: crl, noCRL: err}, nil
}

// storedCRL reads the CRL in the CA's database.
func (ca *CA) storedCRL(ctx context.Context) (*revocation.CRL, error) {
	if !ca.settings.CA.CRL.IsEnabled() {
		return nil, problem.New("%w", revocation.ErrNoCRL).Hint(revocation.NoCRLHint)
	}
	if err := ca.buildCRL(ctx); err != nil {
		return nil, err
	}
	var stored *db.CertificateRevocationListInfo
	err := ca.withTimeout(ctx, func() (err error) {
		stored, err = ca.store.GetCRL()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the CRL in the CA's database: %w", err)
	}
	issuers, _ := ca.Issuers(ctx)
	return revocation.ReadCRL(stored.DER, issuers)
}

// evidence is the record of each revocation in the CA's database, and the CRL
// there.
type evidence struct {
	ca    *CA
	crl   *revocation.CRL // nil if there is none
	noCRL error           // why there is none
}

// Find returns the record of a certificate, or nil if there is none.
func (e *evidence) Find(ctx context.Context, serial target.Serial) (*revocation.Record, error) {
	record, err := e.ca.Find(ctx, serial)
	if record != nil {
		record.Listed = e.crl != nil && e.crl.Lists(serial)
	}
	return record, err
}

// Find returns the record of a certificate in the CA's database, which must be open,
// or nil if there is none. It does not look into the CRL.
func (ca *CA) Find(ctx context.Context, serial target.Serial) (*revocation.Record, error) {
	var info *db.RevokedCertificateInfo
	err := ca.withTimeout(ctx, func() (err error) {
		info, err = ca.database.Revocation(serial.String())
		return err
	})
	if err != nil || info == nil {
		return nil, err
	}
	return &revocation.Record{Code: &info.ReasonCode, Text: info.Reason, Time: info.RevokedAt}, nil
}

// CRL returns the CRL in the CA's database, or nil if there is none.
func (e *evidence) CRL() *revocation.CRL { return e.crl }

// WhyMissing says why a revoked certificate is not in the CRL.
func (e *evidence) WhyMissing() error {
	if e.noCRL != nil {
		return e.noCRL
	}
	return problem.New("not in the CRL in the CA's database, number %s", e.crl.Number()).Hint("%s", e.ca.crlHint())
}

// Cleared returns nil if there is no CRL, or if it does not have a certificate.
func (e *evidence) Cleared(serial target.Serial) error {
	switch {
	case !e.ca.settings.CA.CRL.IsEnabled():
		return nil
	case e.noCRL != nil:
		return e.noCRL
	case e.crl.Lists(serial):
		return problem.New("the CRL in the CA's database, number %s, still has it", e.crl.Number()).Hint("%s", e.ca.crlHint())
	}
	return nil
}

// Recheck clears the Done of targets of which the database does not say what a
// journal does: the database is the truth. It returns how many. If it cannot be
// read, none is done. An error may be a database.OwnerError.
func Recheck(ctx context.Context, c Config, s *Settings, list *target.List) (cleared int, err error) {
	err = eachRecord(ctx, c, s, list, true, func(t *target.Target, record *db.RevokedCertificateInfo) {
		if !isAsAsked(record, c.ReasonCode) {
			t.Done = false
			cleared++
		}
	})
	if err != nil {
		for i := range list.All {
			list.All[i].Done = false
		}
	}
	return cleared, err
}

// isAsAsked tells whether a record, or that there is none, can be what is left of a
// revocation with this reason: it may be older, unless it is that of a hold.
func isAsAsked(record *db.RevokedCertificateInfo, reasonCode int) bool {
	switch reasonCode {
	case revocation.RemoveFromCRL:
		return record == nil
	case revocation.CertificateHold:
		return record != nil
	}
	return record != nil && record.ReasonCode != revocation.CertificateHold
}
