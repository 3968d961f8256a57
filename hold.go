package main

import (
	"context"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// releaseCommand is what lifts a hold. step-ca's API can only add revocations.
const releaseCommand = "step revoke --offline --reasonCode removeFromCRL"

// checkRelease refuses to release where that cannot be done: online, or in the name
// of the certificate itself, which is what somebody has suspended.
func (o *options) checkRelease(reason revocation.Reason) error {
	switch {
	case reason.Code != revocation.RemoveFromCRL || o.looksOnly():
		return nil
	case !o.batch.InProcess:
		return problem.New("removeFromCRL lifts a hold, which step-ca can do only on its own host").Hint("on that host: %s", releaseCommand)
	case o.proof.Key.File != "":
		return problem.New("a certificate cannot lift its own hold").Hint("leave out --key")
	}
	return nil
}

// releases tells whether the run is to lift holds. With a plan only its reason says.
func (o *options) releases() bool { return o.reason.Code == revocation.RemoveFromCRL }

// releases tells whether the run is to lift holds.
func (r *report) releases() bool { return r.reason.Code == revocation.RemoveFromCRL }

// confirmRelease asks whether to release what is on hold, after it has counted what
// is and what is not. If nothing is, there is nothing to ask.
func confirmRelease(ctx context.Context, o *options, list *target.List, r *report) (err error) {
	asks := !o.force && !o.dryRun
	if asks {
		if err := ui.CheckTerminal("--force"); err != nil {
			return err
		}
	}
	if r.holds, err = offline.LookForHolds(ctx, *o.offline, o.settings, list); err != nil {
		return withCommand(err)
	}
	held, others := r.holds.Held, r.holds.Others()
	if held == 0 {
		return noHold(list, r)
	}
	if asks {
		showTargets(o, list, r)
	}
	if others > 0 {
		ui.Warn("%s not on hold and cannot be released: %s", ui.Count(others, "certificate is", "certificates are"), notHeld(r.holds))
	}
	if asks {
		return demandYes(ctx, "Release "+ui.Count(held, "certificate", "certificates")+"?")
	}
	return nil
}

// noHold says why there is nothing to release.
func noHold(list *target.List, r *report) error {
	if len(list.All) == 1 {
		serial := list.All[0].Serial
		return problem.WithCode(problem.Failed, "the certificate with serial number %s cannot be released: %w", serial, r.holds.Refuse(serial))
	}
	return problem.WithCode(problem.Failed, "none of %s is on hold: %s", ui.Count(r.left(), "certificate", "certificates"), notHeld(r.holds))
}

// notHeld counts what is not on hold.
func notHeld(h *offline.Holds) string {
	var parts []string
	if h.Revoked > 0 {
		parts = append(parts, ui.Count(h.Revoked, "is", "are")+" revoked for good")
	}
	if n := h.Others() - h.Revoked; n > 0 {
		parts = append(parts, ui.Count(n, "is", "are")+" not revoked")
	}
	return strings.Join(parts, ", ")
}

// refuseRelease says why a certificate cannot be released, as far as that was looked
// up before; else it returns nil.
func (r *report) refuseRelease(serial target.Serial) error {
	if r.holds == nil {
		return nil
	}
	return r.holds.Refuse(serial)
}
