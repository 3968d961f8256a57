package offline

import (
	"context"
	"errors"
	"fmt"

	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
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
		return nil, problem.New("the CA has no CRL").Hint(revocation.NoCRLHint)
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
	var info *db.RevokedCertificateInfo
	err := e.ca.withTimeout(ctx, func() (err error) {
		info, err = e.ca.database.Revocation(serial.String())
		return err
	})
	if err != nil || info == nil {
		return nil, err
	}
	return &revocation.Record{
		Code: &info.ReasonCode, Text: info.Reason, Time: info.RevokedAt,
		Listed: e.crl != nil && e.crl.Lists(serial),
	}, nil
}

// CRL returns the CRL in the CA's database, or nil if there is none.
func (e *evidence) CRL() *revocation.CRL { return e.crl }

// WhyMissing says why a revoked certificate is not in the CRL.
func (e *evidence) WhyMissing() error {
	if e.noCRL != nil {
		return e.noCRL
	}
	return problem.New("the CRL in the CA's database, number %s, does not have it", e.crl.Number()).Hint("%s", e.ca.crlHint())
}

// Recheck clears the Done of targets that the database does not say are revoked,
// whatever a journal says: the database is the truth. It returns how many. If it
// cannot be read, none is done. An error may be a database.OwnerError.
func Recheck(ctx context.Context, c Config, s *Settings, list *target.List) (cleared int, err error) {
	if err = database.Check(s.CA.DB); err == nil {
		cleared, err = recheck(ctx, &CA{config: c, settings: s}, list)
		err = problem.Default(err, problem.Failed)
	}
	if err != nil {
		for i := range list.All {
			list.All[i].Done = false
		}
	}
	return cleared, err
}

func recheck(ctx context.Context, ca *CA, list *target.List) (cleared int, err error) {
	var opened *database.DB
	err = ca.withTimeout(ctx, func() (err error) {
		opened, err = ca.openDatabase()
		return err
	})
	if err != nil {
		return 0, err
	}
	for i := range list.All {
		t, revoked := &list.All[i], false
		if !t.Done {
			continue
		}
		if err = problem.ErrInterrupted; ctx.Err() == nil {
			err = ca.withTimeout(ctx, func() (err error) {
				revoked, err = (&db.DB{DB: opened}).IsRevoked(t.Serial.String())
				return err
			})
		}
		if err != nil {
			break
		}
		if !revoked {
			t.Done = false
			cleared++
		}
	}
	if ca.abandoned {
		return cleared, err
	}
	return cleared, errors.Join(err, opened.Close())
}
