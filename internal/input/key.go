package input

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"

	"go.step.sm/crypto/keyutil"
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
	key, err := k.decrypt(ctx, data)
	signer, ok := key.(crypto.Signer)
	var said *problem.Problem
	switch {
	case err == nil && ok:
		return signer, nil
	case errors.As(err, &said):
		return nil, err
	}
	p := problem.New("%s holds no private key that can sign", k.File)
	if err != nil {
		p = problem.New("%s is not a private key that can be read: %w", k.File, problem.Cleaned(err))
	}
	return nil, p.Hint("%s names a PEM file with the private key of the certificate in %s", k.Flag, k.CertFlag)
}

// Public reads the public key in a file: that of a certificate, the first one of
// several, of a CSR, or of a public or private key, in PEM or DER. For an encrypted
// key it wants the password as Read does.
func (k KeyFile) Public(ctx context.Context) (crypto.PublicKey, error) {
	data, err := readBounded(ctx, k.File, maxCertificates)
	switch {
	case errors.Is(err, problem.ErrInterrupted):
		return nil, err
	case err != nil:
		return nil, problem.New("reading the key: %w", err)
	}
	if bytes.Contains(data, []byte("PRIVATE KEY")) {
		hide(data)
	}
	var found any
	switch block, _ := pem.Decode(data); {
	case block == nil:
		found, err = parseDER(data)
	case block.Type == "RSA PUBLIC KEY": // which pemutil does not know
		found, err = parseDER(block.Bytes)
	default:
		found, err = k.decrypt(ctx, data)
	}
	if said := (*problem.Problem)(nil); errors.As(err, &said) {
		return nil, err
	}
	if err == nil {
		found, err = keyutil.PublicKey(found)
	}
	if err != nil {
		return nil, problem.New("%s holds no key that can be read", k.File).
			Hint("%s takes a file with a certificate, a CSR, a public or a private key", k.Flag)
	}
	return found, nil
}

// parseDER reads a key, or what has one.
func parseDER(data []byte) (any, error) {
	if cert, err := x509.ParseCertificate(data); err == nil {
		return cert.PublicKey, nil
	}
	if request, err := x509.ParseCertificateRequest(data); err == nil {
		return request.PublicKey, nil
	}
	return pemutil.ParseDER(data)
}

// decrypt reads the first key in PEM, or what has one, which may be encrypted. An
// error about the password is a problem.
func (k KeyFile) decrypt(ctx context.Context, data []byte) (key any, err error) {
	var password []byte
	notGiven := errNotGiven
	if k.PasswordFile != "" {
		if password, err = Password(ctx, k.PasswordFile, k.PasswordFlag); err != nil {
			return nil, err
		}
		notGiven = nil
	}
	encrypted := false
	key, err = k.parse(data, func(string) ([]byte, error) {
		encrypted = true
		return password, notGiven
	})
	switch {
	case errors.Is(err, errNotGiven):
		return k.ask(ctx, data)
	case encrypted && IsWrongPassword(err):
		return nil, problem.New("the password in %s does not decrypt the key in %s", k.PasswordFile, k.File)
	}
	return key, err
}

// ask asks for the password of an encrypted key.
func (k KeyFile) ask(ctx context.Context, data []byte) (key any, keyErr error) {
	err := ui.AskPassword(ctx, k.PasswordFlag, "Please enter the password to decrypt "+k.File, func(password []byte) bool {
		key, keyErr = k.parse(data, func(string) ([]byte, error) { return password, nil })
		return !IsWrongPassword(keyErr)
	})
	switch {
	case errors.Is(err, ui.ErrWrongPassword):
		return nil, problem.New("the password does not decrypt the key in %s", k.File)
	case err != nil:
		return nil, err
	}
	return key, keyErr
}

// parse parses the first block of PEM that is not the parameters of a key, which
// openssl writes before the key itself. Its errors are those of pemutil, or
// problems.
func (k KeyFile) parse(data []byte, password pemutil.PasswordPrompter) (key any, err error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil || !strings.HasSuffix(block.Type, " PARAMETERS") {
			if block != nil && isSlow(block.Bytes) {
				return nil, problem.New("%s takes more than %d rounds to decrypt", k.File, maxRounds)
			}
			break
		}
		data = rest
	}
	defer func() {
		if recover() != nil { // pemutil takes the length of what is encrypted for granted
			key, err = nil, errMalformed
		}
	}()
	return pemutil.ParseKey(data, pemutil.WithFilename(k.File), pemutil.WithFirstBlock(), pemutil.WithPasswordPrompt("", password))
}

var errMalformed = errors.New("it is malformed")

// maxRounds bounds how often a password is hashed to decrypt a key, which takes some
// seconds and cannot be interrupted. openssl has it hashed 2,048 times unless told
// otherwise, and step 600,000 times.
var maxRounds = int64(10_000_000)

// isSlow tells whether a private key in PKCS #8 is encrypted in such a way that it
// takes more than maxRounds to decrypt (RFC 8018, appendix A.2 and A.4).
func isSlow(der []byte) bool {
	var key struct {
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters struct {
				Derivation struct {
					ID         asn1.ObjectIdentifier
					Parameters struct {
						Salt   []byte
						Rounds int64
					}
				}
			}
		}
	}
	_, err := asn1.Unmarshal(der, &key)
	return err == nil && key.Algorithm.Parameters.Derivation.Parameters.Rounds > maxRounds
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
