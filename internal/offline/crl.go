package offline

import (
	"context"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// buildCRL builds and stores one CRL with everything that is revoked, if the one
// in the database may be out of date.
func (ca *CA) buildCRL() error {
	if !ca.settings.CA.CRL.IsEnabled() || !ca.staleCRL.Swap(false) {
		return nil
	}
	err := ca.noSigner
	if err == nil {
		ca.running.CRL = ca.settings.CA.CRL // where the authority looks it up
		err = ca.withTimeout(context.Background(), ca.authority.GenerateCertificateRevocationList)
	}
	if err != nil {
		return noCRL(err)
	}
	ui.Say("The CRL was rebuilt.")
	return nil
}

// rebuildHint is for what a CRL lacks.
const rebuildHint = "step-ca rebuilds the CRL when it starts"

// noCRL returns the problem that a CRL was to be rebuilt and could not be.
func noCRL(err error) error {
	return problem.WithCode(problem.Incomplete, "the CRL was not rebuilt: %w", err).Hint(rebuildHint)
}
