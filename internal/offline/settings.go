package offline

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"strings"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
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
	const hint = "revoke online, by serial number or certificate"
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

// A Renewal knows which certificates step-ca renews after they have expired.
type Renewal struct {
	byID, byName map[string]bool
}

// Renewal reads that from the CA's configuration or, with remote management, from
// its database.
func (s *Settings) Renewal(ctx context.Context, from *database.DB) (*Renewal, error) {
	auth := s.CA.AuthorityConfig
	list := auth.Provisioners
	if auth.EnableAdmin {
		var err error
		if list, err = managedProvisioners(ctx, from); err != nil {
			return nil, err
		}
	}
	r := &Renewal{byID: map[string]bool{}, byName: map[string]bool{}}
	for _, p := range list {
		after, err := renewsAfterExpiry(p, auth.Claims)
		if err != nil {
			return nil, problem.New("reading the provisioner %q: %w", p.GetName(), err)
		}
		r.byID[p.GetID()] = after
		r.byName[p.GetName()] = r.byName[p.GetName()] || after
	}
	return r, nil
}

// renewsAfterExpiry tells whether a provisioner lets its certificates be renewed
// after they have expired (authority/provisioner/controller.go,
// DefaultAuthorizeRenew). Its own claims go before those of the CA.
func renewsAfterExpiry(p provisioner.Interface, global *provisioner.Claims) (bool, error) {
	var own struct {
		Claims *provisioner.Claims `json:"claims"`
	}
	data, err := json.Marshal(p) // the types have no common way to their claims
	if err == nil {
		err = json.Unmarshal(data, &own)
	}
	var after, never bool
	for _, c := range []*provisioner.Claims{global, own.Claims} {
		if c != nil && c.AllowRenewalAfterExpiry != nil {
			after = *c.AllowRenewalAfterExpiry
		}
		if c != nil && c.DisableRenewal != nil {
			never = *c.DisableRenewal
		}
	}
	return after && !never, err
}

// AfterExpiry tells whether step-ca renews a certificate after it has expired. It
// asks the provisioner with the ID that the database has for the certificate, else
// the one that the certificate names. Where neither names one that the CA has, it
// renews only what has not expired (authority/authorize.go, AuthorizeRenewToken).
func (r *Renewal) AfterExpiry(cert *x509.Certificate, id string) bool {
	if after, known := r.byID[id]; known {
		return after
	}
	named, _ := provisioner.GetProvisionerExtension(cert)
	return named != nil && r.byName[named.Name]
}
