package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// Interrupted prints what the program still waits for. From here on what is not done
// is counted: sayInterrupted tells.
func (r *report) Interrupted(inFlight int) {
	r.interrupted = true
	what := "the answer"
	switch {
	case inFlight == 0:
		return
	case inFlight > 1:
		what = fmt.Sprintf("%d answers", inFlight)
	}
	ui.Warn("interrupted: waiting for %s for at most %s", what, seconds(batch.Grace))
}

// seconds writes a duration of whole seconds for a person.
func seconds(d time.Duration) string { return ui.Count(int(d.Seconds()), "second", "seconds") }

// sayInterrupted prints how many had no answer when a signal ended the run, and how
// to go on.
func (r *report) sayInterrupted() {
	var parts []string
	if n := r.counts[revocation.Unknown]; n > 0 {
		parts = append(parts, ui.Count(n, "certificate", "certificates")+" had no answer yet")
	}
	if n := r.counts[revocation.NotAttempted]; n > 0 {
		parts = append(parts, ui.Count(n, "was", "were")+" not attempted")
	}
	if !r.interrupted || len(parts) == 0 {
		return
	}
	goesOn := "the same command continues: what is already revoked is not a failure"
	switch {
	case r.options.proof.Token != nil:
		goesOn = "the same command with a new token tells whether it is revoked"
	case r.journal != nil:
		goesOn = "the same command continues where this one stopped"
	case r.releases():
		goesOn = "the same command continues, and refuses what is already released"
	}
	ui.Warn("%s; %s", strings.Join(parts, ", "), goesOn)
}
