package authorize

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// chooseProvisioner finds the one provisioner that fits, and asks which where
// several do. With an X5C certificate it is of that type, else a JWK one.
func (c *Credentials) chooseProvisioner(ctx context.Context, ca CA) (provisioner.Interface, error) {
	all, err := ca.Provisioners(ctx)
	if err != nil {
		return nil, err
	}
	fitting, err := c.fitting(all)
	if err != nil { // the same code, whether the CA was asked or its configuration read
		return nil, problem.Default(err, problem.Failed)
	}
	var labels []string
	for _, p := range fitting {
		label := fmt.Sprintf("%s (%s)", p.GetName(), p.GetType())
		if jwk, ok := p.(*provisioner.JWK); ok {
			label += fmt.Sprintf(" [kid: %s]", jwk.Key.KeyID)
		}
		labels = append(labels, label)
	}
	if len(fitting) == 1 {
		ui.Selected("Provisioner", labels[0])
		return fitting[0], nil
	}
	i, err := ui.AskChoice(ctx, "--provisioner", "Provisioner", "Which provisioner do you want to use?", labels)
	if p := (*problem.Problem)(nil); errors.As(err, &p) && problem.Code(err) == problem.Usage {
		return nil, p.Hint("suitable provisioners: %s", listed(labels))
	}
	if err != nil {
		return nil, err
	}
	return fitting[i], nil
}

// fitting returns the provisioners that can authorize as configured, at least
// one.
func (c *Credentials) fitting(all provisioner.List) (fitting []provisioner.Interface, err error) {
	wanted, name := provisioner.TypeJWK, c.config.Provisioner
	if c.x5c != nil {
		wanted = provisioner.TypeX5C
	}
	var names []string
	var untrusted error
	for _, p := range all {
		isNamed := name == "" || p.GetName() == name
		switch {
		case p.GetType() == wanted:
			names = append(names, p.GetName())
		case name != "" && isNamed:
			return nil, unfit(p, wanted)
		default:
			continue
		}
		if !isNamed {
			continue
		}
		switch p := p.(type) {
		case *provisioner.JWK:
			if p.Key == nil {
				return nil, problem.New("the CA lists the provisioner %q without its key", p.Name)
			}
			if c.config.KID != "" && p.Key.KeyID != c.config.KID || c.signingKey != nil && !isKeyOf(c.signingKey, p) {
				continue
			}
		case *provisioner.X5C:
			if err := checkTrust(p, c.x5c); err != nil {
				untrusted = err
				continue
			}
		}
		fitting = append(fitting, p)
	}
	if len(fitting) == 0 {
		return nil, c.noneFits(wanted, names, untrusted)
	}
	return fitting, nil
}

// hostHint is for a CA whose provisioners cannot authorize.
const hostHint = "on the CA's host no provisioner is needed: --offline without --provisioner and the like"

// noneFits says why no provisioner fits. names are those of the wanted type;
// untrusted is why the last of them does not trust the X5C certificate.
func (c *Credentials) noneFits(wanted provisioner.Type, names []string, untrusted error) error {
	name := c.config.Provisioner
	existing := fmt.Sprintf("its %s provisioners are: %s", wanted, listed(names))
	switch {
	case len(names) == 0:
		return problem.New("the CA has no %s provisioner to authorize the revocation", wanted).
			Hint("only JWK and X5C provisioners can (X5C: --x5c-cert and --x5c-key); or the certificate itself, with --cert and --key").Hint(hostHint)
	case name != "" && !slices.Contains(names, name):
		return problem.New("the CA has no provisioner %q", name).Hint("%s", existing)
	case untrusted != nil:
		who := "the CA has no X5C provisioner that trusts"
		if name != "" {
			who = fmt.Sprintf("the provisioner %q does not trust", name)
		}
		return problem.New("%s the certificate in %s: %w", who, c.config.X5C.Cert, untrusted).
			Hint("put the certificates between it and the provisioner's root into the same file, or name them with --x5c-chain")
	case name != "":
		return problem.New("the provisioner %q has another key", name).Hint("leave out --provisioner, or check --kid and --provisioner-key")
	case c.signingKey != nil:
		return problem.New("the key in %s is not that of a provisioner of this CA", c.config.KeyFile).Hint("%s", existing)
	}
	return problem.New("the CA has no JWK provisioner with the key ID %q", c.config.KID).Hint("%s", existing)
}

// listed joins names, of which there may be many, for a person.
func listed(names []string) string {
	const most = 20
	if more := len(names) - most; more > 0 {
		names = append(names[:most:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// whyNot says why step-ca takes no tokens for revoking from provisioners of a
// type: the subject of the token must be the serial number, and only the holder
// of a signing key can choose the subject.
var whyNot = map[provisioner.Type]string{
	provisioner.TypeOIDC:   "the subject of its tokens is a user, and step-ca wants the serial number there",
	provisioner.TypeAWS:    "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeGCP:    "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeAzure:  "the subject of its tokens is an instance, and step-ca wants the serial number there",
	provisioner.TypeK8sSA:  "the subject of its tokens is a service account, and step-ca wants the serial number there",
	provisioner.TypeACME:   "ACME has no tokens",
	provisioner.TypeSCEP:   "SCEP has no tokens",
	provisioner.TypeSSHPOP: "it is for SSH certificates",
	provisioner.TypeNebula: "step-ca takes no revocations from it",
}

// unfit says why a provisioner that was named cannot be used.
func unfit(p provisioner.Interface, wanted provisioner.Type) error {
	switch p.GetType() {
	case provisioner.TypeX5C:
		return problem.New("the provisioner %q is of type X5C", p.GetName()).Hint("authorize with a certificate that it trusts: --x5c-cert and --x5c-key")
	case provisioner.TypeJWK:
		return problem.New("the provisioner %q is of type JWK and not %s", p.GetName(), wanted).Hint("leave out --x5c-cert and --x5c-key, or their variables STEP_X5C_CERT and STEP_X5C_KEY")
	}
	return problem.New("the provisioner %q is of type %s and cannot authorize a revocation: %s", p.GetName(), p.GetType(), whyNot[p.GetType()]).
		Hint("use a JWK or X5C provisioner, or the certificate itself with --cert and --key").Hint(hostHint)
}

// checkTrust finds out whether an X5C provisioner will take tokens that are
// signed for a certificate (authority/provisioner/x5c.go, X5C.authorizeToken).
func checkTrust(p *provisioner.X5C, chain []*x509.Certificate) error {
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	opts.Roots.AppendCertsFromPEM(p.Roots)
	for _, certificate := range chain[1:] {
		opts.Intermediates.AddCert(certificate)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// isKeyOf tells whether a private key is that of a provisioner.
func isKeyOf(key *jose.JSONWebKey, p *provisioner.JWK) bool {
	a, errA := jose.Thumbprint(key)
	b, errB := jose.Thumbprint(p.Key)
	return errA == nil && errB == nil && a == b
}
