package offline

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/smallstep/certificates/db"
	kmsapi "go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// prepareCRL gets the key that signs CRLs, if there are any to sign. Without the
// key the run goes on; only a wrong password or a signal ends it.
func (ca *CA) prepareCRL(ctx context.Context) (fatal error) {
	if !ca.settings.CA.CRL.IsEnabled() || ca.config.LookOnly {
		return nil
	}
	if ca.signer, ca.noSigner, fatal = ca.readSigner(ctx); fatal != nil {
		return fatal
	}
	if ca.noSigner != nil {
		ui.Warn("no new CRL will be made: %v", ca.noSigner)
	}
	return nil
}

// readSigner returns the key that signs CRLs, or why it cannot be had. A fatal
// error must end the run.
func (ca *CA) readSigner(ctx context.Context) (signer crypto.Signer, why, fatal error) {
	cfg := ca.settings.CA
	kmsType, err := kmsapi.TypeOf(cfg.IntermediateKey)
	if cfg.KMS != nil && (err != nil || kmsType == kmsapi.DefaultKMS) {
		kmsType, _ = cfg.KMS.GetType()
	}
	if kmsType != kmsapi.DefaultKMS && kmsType != kmsapi.SoftKMS {
		return nil, fmt.Errorf("the CA's key is in a key management system (%s), which is not used offline", kmsType), nil
	}
	signer, why, fatal = ca.readKey(ctx)
	switch {
	case why != nil || fatal != nil:
		return nil, why, fatal
	case !input.KeyFits(signer, ca.chain[0]):
		return nil, fmt.Errorf("%s is not the key of %s", cfg.IntermediateKey, cfg.IntermediateCert), nil
	}
	return signer, nil, nil
}

// readKey reads the CA's key from its file, with the errors of readSigner. The
// password comes from the password file, from ca.json, or from a person.
func (ca *CA) readKey(ctx context.Context) (key crypto.Signer, why, fatal error) {
	file, password := ca.settings.CA.IntermediateKey, ca.password
	if password == nil {
		password = []byte(ca.settings.CA.Password)
	}
	key, encrypted, err := decrypt(file, password)
	wrong := encrypted && input.IsWrongPassword(err)
	switch {
	case encrypted && len(password) == 0:
		return ca.askForKey(ctx)
	case wrong && ca.password != nil:
		return nil, nil, problem.New("the password in %s does not fit the CA's key %s", ca.config.PasswordFile, file)
	case wrong:
		return nil, fmt.Errorf("the password in %s does not fit the CA's key", ca.config.File), nil
	}
	return key, err, nil
}

// askForKey reads the CA's key with a password that a person types.
func (ca *CA) askForKey(ctx context.Context) (key crypto.Signer, why, fatal error) {
	file := ca.settings.CA.IntermediateKey
	err := ui.AskPassword(ctx, "--ca-password-file", "Please enter the password to decrypt the CA's key (empty: no new CRL)", func(password []byte) bool {
		if len(password) == 0 {
			why = errors.New("no password was given")
			return true
		}
		key, _, why = decrypt(file, password)
		return !input.IsWrongPassword(why)
	})
	switch {
	case errors.Is(err, ui.ErrWrongPassword):
		return nil, nil, problem.New("the password does not fit the CA's key %s", file)
	case errors.Is(err, problem.ErrInterrupted):
		return nil, nil, err
	case err != nil: // nobody can be asked
		return nil, err, nil
	}
	return key, why, nil
}

// decrypt reads a private key, and tells whether it needs the password. With an
// empty password an encrypted key is an error.
func decrypt(file string, password []byte) (key crypto.Signer, encrypted bool, err error) {
	key, err = (&softkms.SoftKMS{}).CreateSigner(&kmsapi.CreateSignerRequest{
		SigningKey: file,
		PasswordPrompter: func(string) ([]byte, error) {
			encrypted = true
			if len(password) == 0 {
				return nil, errors.New("no password was given")
			}
			return password, nil
		},
	})
	return key, encrypted, err
}

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
	if err := ca.buildCRL(); err != nil {
		return nil, err
	}
	store, ok := ca.authority.GetDatabase().(db.CertificateRevocationListDB)
	if !ok {
		return nil, errors.New("the CA's database cannot hold a CRL")
	}
	var stored *db.CertificateRevocationListInfo
	err := ca.withTimeout(ctx, func() (err error) {
		stored, err = store.GetCRL()
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

// WhyMissing says why a revoked certificate is not in the CRL.
func (e *evidence) WhyMissing() error {
	if e.noCRL != nil {
		return e.noCRL
	}
	return problem.New("the CRL in the CA's database, number %s, does not have it", e.crl.Number()).Hint(rebuildHint)
}
