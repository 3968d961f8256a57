package main

import (
	"context"
	"fmt"

	"github.com/step-plugins/step-revoke-plugin/internal/authorize"
	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// A dryRun is an authority that does everything but revoke.
type dryRun struct {
	authority
	refuse func(target.Serial) error // why something certainly fails, or nil
	chosen bool                      // from the database, which has just said that they are not revoked
}

// Open also makes sure that the CA is there, where nothing else has.
func (d dryRun) Open(ctx context.Context, list *target.List) error {
	if _, err := d.Issuers(ctx); err != nil {
		return err
	}
	return d.authority.Open(ctx, list)
}

// Revoke plans a revocation. Offline it looks whether there is anything left to do.
func (d dryRun) Revoke(ctx context.Context, req revocation.Request) revocation.Answer {
	if err := d.refuse(req.Serial); err != nil {
		return revocation.Answer{Status: revocation.Failed, Err: err, Next: revocation.Alone}
	}
	plan := revocation.Answer{Status: revocation.Planned}
	host, ok := d.authority.(*offline.CA)
	if !ok || d.chosen || req.Reason.Code == revocation.RemoveFromCRL {
		return plan
	}
	switch record, err := host.Find(ctx, req.Serial); {
	case err != nil:
		return revocation.Answer{Status: revocation.Failed, Err: fmt.Errorf("what is on record cannot be read: %w", err)}
	case record == nil:
	case record.IsHold() && req.Reason.Code != revocation.CertificateHold:
		plan.Held = true
	default:
		plan.Status, plan.Record = revocation.AlreadyRevoked, record
	}
	return plan
}

// A named proof authorizes nothing, in the name of somebody who could.
type named struct{ name string }

func (named) Token(target.Serial) (string, error) { return "", nil }
func (named) Repeatable() bool                    { return false }
func (n named) String() string                    { return n.name }

// tested makes sure that a proof can authorize, and spares the dry run the rest.
func tested(proof authorize.Proof, list *target.List) (authorize.Proof, error) {
	_, err := proof.Token(list.All[0].Serial)
	return named{proof.String()}, err
}
