package offline

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	kmsapi "go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
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
		ui.Warn("the CRL will not be rebuilt: %v", ca.noSigner)
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
		return nil, nil, problem.New("the password in %s does not decrypt the CA's key %s", ca.config.PasswordFile, file)
	case wrong:
		return nil, fmt.Errorf("the password in %s does not decrypt the CA's key", ca.config.File), nil
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
		return nil, nil, problem.New("the password does not decrypt the CA's key %s", file)
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
