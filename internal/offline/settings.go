package offline

import (
	"crypto/x509"
	"strings"

	"github.com/smallstep/certificates/authority/config"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Settings are what the CA's ca.json says. They are only read.
type Settings struct {
	CA    *config.Config
	Roots []*x509.Certificate
}

// ReadSettings reads the CA's ca.json and its root certificates. It refuses a CA
// whose certificates cannot be revoked without that CA.
func ReadSettings(file string) (*Settings, error) {
	cfg, err := config.LoadConfiguration(file)
	if err != nil {
		return nil, problem.New("reading the CA's configuration: %w", err).
			Hint("--ca-config names the CA's ca.json, --context the context that it is in")
	}
	problem.Hide(cfg.Password)
	if err := checkConfig(cfg); err != nil {
		return nil, problem.Wrap(err, "%s", file)
	}
	s := &Settings{CA: cfg}
	for _, name := range cfg.Root {
		roots, err := pemutil.ReadCertificateBundle(name)
		if err != nil {
			return nil, problem.New("reading the CA's root certificate: %w", err).Hint("check \"root\" in ca.json")
		}
		s.Roots = append(s.Roots, roots...)
	}
	return s, nil
}

// checkConfig finds what makes a CA unfit for revoking without it.
func checkConfig(cfg *config.Config) error {
	const hint = "revoke online, without --offline"
	ra := cfg.AuthorityConfig.Options
	switch {
	case !ra.Is(casapi.SoftCAS):
		return problem.New("this is a registration authority (%s), and its certificates are revoked by the CA behind it", casapi.Type(ra.Type)).Hint(hint)
	case strings.EqualFold(cfg.AuthorityConfig.DeploymentType, "linked"):
		return problem.New("this is a linked CA, which keeps its revocations elsewhere").Hint(hint)
	}
	switch err := cfg.Validate(); {
	case err != nil:
		return problem.New("the configuration is invalid: %w", err)
	case cfg.DB == nil:
		return problem.New("the CA has no database (\"db\"), and step-ca cannot revoke without one")
	}
	return nil
}
