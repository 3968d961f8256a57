package input

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"strings"

	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A KeyFile is a private key in PEM.
type KeyFile struct {
	File         string
	PasswordFile string // for an encrypted key; empty: the password is asked for

	Flag, PasswordFlag, CertFlag string // that name the two files and the key's certificate
}

// errNotGiven ends the parsing of an encrypted key before a password is tried.
var errNotGiven = errors.New("no password is given")

// Read reads the key. If the key is encrypted and there is no password file, it
// asks for the password, up to three times.
func (k KeyFile) Read(ctx context.Context) (crypto.Signer, error) {
	data, err := Secret(ctx, k.File, k.Flag, "the private key")
	if err != nil {
		return nil, err
	}
	var password []byte
	notGiven := errNotGiven
	if k.PasswordFile != "" {
		if password, err = Password(ctx, k.PasswordFile, k.PasswordFlag); err != nil {
			return nil, err
		}
		notGiven = nil
	}
	encrypted := false
	key, err := k.parse(data, func(string) ([]byte, error) {
		encrypted = true
		return password, notGiven
	})
	switch {
	case errors.Is(err, errNotGiven):
		return k.ask(ctx, data)
	case encrypted && IsWrongPassword(err):
		return nil, problem.New("the password in %s does not fit the key in %s", k.PasswordFile, k.File)
	}
	return k.signer(key, err)
}

// ask asks for the password of an encrypted key.
func (k KeyFile) ask(ctx context.Context, data []byte) (crypto.Signer, error) {
	var key any
	var keyErr error
	err := ui.AskPassword(ctx, k.PasswordFlag, "Please enter the password to decrypt "+k.File, func(password []byte) bool {
		key, keyErr = k.parse(data, func(string) ([]byte, error) { return password, nil })
		return !IsWrongPassword(keyErr)
	})
	switch {
	case errors.Is(err, ui.ErrWrongPassword):
		return nil, problem.New("the password does not fit the key in %s", k.File)
	case err != nil:
		return nil, err
	}
	return k.signer(key, keyErr)
}

// parse parses the key. Its errors are those of pemutil.
func (k KeyFile) parse(data []byte, password pemutil.PasswordPrompter) (any, error) {
	return pemutil.ParseKey(data, pemutil.WithFilename(k.File), pemutil.WithFirstBlock(), pemutil.WithPasswordPrompt("", password))
}

// signer returns the key as one that can sign, or words the error of parse.
func (k KeyFile) signer(key any, err error) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if err == nil && ok {
		return signer, nil
	}
	p := problem.New("%s holds no private key that can sign", k.File)
	if err != nil {
		p = problem.New("%s is not a private key that can be read: %w", k.File, problem.Cleaned(err))
	}
	return nil, p.Hint("%s names a PEM file with the private key of the certificate in %s", k.Flag, k.CertFlag)
}

// KeyFits tells whether a private key is that of a certificate.
func KeyFits(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// IsWrongPassword tells whether an error of pemutil, about a key that is
// encrypted, means that the password is wrong. One wrong password in 256 passes
// the check of the padding (RFC 8018, section 6.1.1), and then the result cannot
// be parsed.
func IsWrongPassword(err error) bool {
	return errors.Is(err, x509.IncorrectPasswordError) || err != nil && strings.HasPrefix(err.Error(), "error parsing ")
}
