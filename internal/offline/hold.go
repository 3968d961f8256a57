package offline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/smallstep/certificates/db"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A lifted is the end of a hold, which the authority passes on as an error: of
// successes it knows only that a record is new.
type lifted struct{ status revocation.Status } // Revoked or Released

func (l *lifted) Error() string { return "it was on hold, and is " + string(l.status) }

// A refusal is why a hold cannot be lifted, or only no more: another change came
// between.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// Revoke stores a revocation. That of a certificate on hold takes the place of the
// hold, and one with the reason removeFromCRL removes it: nothing else can be undone.
func (s *store) Revoke(now *db.RevokedCertificateInfo) error {
	releases := now.ReasonCode == revocation.RemoveFromCRL
	if !releases {
		err := s.DB.Revoke(now)
		if !errors.Is(err, db.ErrAlreadyExists) || now.ReasonCode == revocation.CertificateHold {
			return err
		}
	}
	was, hold, err := s.database.Stored(now.Serial)
	if err != nil {
		return err
	}
	if err := checkHold(hold, releases, ""); err != nil {
		return err
	}
	var record []byte
	end := &lifted{revocation.Released}
	if !releases {
		end.status = revocation.Revoked
		if now.ExpiresAt.IsZero() {
			now.ExpiresAt = hold.ExpiresAt
		}
		if record, err = json.Marshal(now); err != nil {
			return err
		}
	}
	switch swapped, err := s.database.Replace(now.Serial, was, record); {
	case err != nil:
		return err
	case swapped:
		return end
	}
	if _, hold, err = s.database.Stored(now.Serial); err != nil {
		return err
	}
	if err := checkHold(hold, releases, " meanwhile"); err != nil {
		return err
	}
	return &refusal{"its hold was changed meanwhile"}
}

// checkHold returns nil if a record is that of a hold, or else why nothing is to be
// lifted.
func checkHold(record *db.RevokedCertificateInfo, releases bool, meanwhile string) error {
	switch {
	case record == nil && meanwhile != "":
		return &refusal{"its hold was released" + meanwhile}
	case record == nil:
		return &refusal{"it is not on hold: it is not revoked"}
	case record.ReasonCode == revocation.CertificateHold:
		return nil
	case releases:
		return &refusal{fmt.Sprintf("it is not on hold: it was revoked%s for good, with the reason code %d", meanwhile, record.ReasonCode)}
	}
	return db.ErrAlreadyExists
}

// Holds is which certificates are on hold, of those that are to be released.
type Holds struct {
	Held    int
	others  map[target.Serial]error // why each of the others cannot be released
	Revoked int                     // how many of these are revoked, for good
}

// Others is how many certificates are not on hold.
func (h *Holds) Others() int { return len(h.others) }

// Refuse returns why a certificate cannot be released, or nil.
func (h *Holds) Refuse(serial target.Serial) error { return h.others[serial] }

// LookForHolds asks the database which of the targets that are not done are on hold.
// An error may be a database.OwnerError.
func LookForHolds(ctx context.Context, c Config, s *Settings, list *target.List) (*Holds, error) {
	h := &Holds{others: map[target.Serial]error{}}
	err := eachRecord(ctx, c, s, list, false, func(t *target.Target, record *db.RevokedCertificateInfo) {
		switch err := checkHold(record, true, ""); {
		case err == nil:
			h.Held++
			return
		case record != nil:
			h.Revoked++
			fallthrough
		default:
			h.others[t.Serial] = err
		}
	})
	return h, err
}

// eachRecord opens the database, and hands out the record of each target that is
// done, or of each that is not; it is nil if there is none. An error may be a
// database.OwnerError.
func eachRecord(ctx context.Context, c Config, s *Settings, list *target.List, done bool, each func(*target.Target, *db.RevokedCertificateInfo)) error {
	if err := database.Check(s.CA.DB); err != nil {
		return err
	}
	ca := &CA{config: c, settings: s}
	var opened *database.DB
	err := ca.withTimeout(ctx, func() (err error) {
		opened, err = ca.openDatabase()
		return err
	})
	if err != nil {
		return problem.Default(err, problem.Failed)
	}
	for i := range list.All {
		t := &list.All[i]
		if t.Done != done {
			continue
		}
		var record *db.RevokedCertificateInfo
		if err = problem.ErrInterrupted; ctx.Err() == nil {
			err = ca.withTimeout(ctx, func() (err error) {
				record, err = opened.Revocation(t.Serial.String())
				return err
			})
		}
		if err != nil {
			break
		}
		each(t, record)
	}
	if !ca.abandoned {
		err = errors.Join(err, opened.Close())
	}
	return problem.Default(err, problem.Failed)
}
