package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"go.step.sm/crypto/pemutil"
)

// readBundle reads all certificates of the file that a flag names. Its errors
// say what is in the file instead, but never show it: it may be a key.
func readBundle(ctx context.Context, file, flag string) ([]*x509.Certificate, error) {
	data, err := readBounded(ctx, file, maxBundle)
	switch {
	case errors.Is(err, errInterrupted):
		return nil, err
	case err != nil:
		return nil, usagef("reading the certificate: %w", err)
	}
	certs, err := pemutil.ParseCertificateBundle(data)
	if err == nil {
		return certs, nil
	}
	block, _ := pem.Decode(data)
	hint := flag + " names a PEM file with a certificate in it"
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, usagef("%s is empty", file).hint("%s", hint)
	case block == nil:
		return nil, usagef("%s is not a certificate", file).hint("%s", hint)
	case block.Type == "CERTIFICATE":
		return nil, usagef("the certificate in %s is malformed", file).hint("%s", hint)
	}
	return nil, usagef("%s holds no certificate, but PEM of type %q", file, clip(block.Type, 64)).hint("%s", hint)
}

// clientCertificate is the certificate of --cert with the key of --key, for
// mTLS. The rest of the certificate's file goes with it as its chain.
func clientCertificate(ctx context.Context, o *options) (*tls.Certificate, error) {
	file, leaf := o.certFiles[0], o.clientChain[0]
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return nil, usagef("the certificate in %s expired at %s and cannot authorize its own revocation", file, leaf.NotAfter.UTC().Format(time.RFC3339)).
			hint("leave out --key to revoke it with a provisioner")
	case now.Before(leaf.NotBefore):
		return nil, usagef("the certificate in %s is not valid before %s", file, leaf.NotBefore.UTC().Format(time.RFC3339)).
			hint("check the clock, or leave out --key to revoke it with a provisioner")
	}
	key, err := readKey(ctx, o.keyFile, o.keyPasswordFile, keyFlags{"--key", "--cert", "--key-password-file"})
	if err != nil {
		return nil, err
	}
	if !isKeyPair(key, leaf) {
		return nil, usagef("the key in %s does not belong to the certificate in %s", o.keyFile, file)
	}
	client := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range o.clientChain {
		client.Certificate = append(client.Certificate, c.Raw)
	}
	return client, nil
}

// isKeyPair tells whether a key is that of a certificate.
func isKeyPair(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// The most bytes that a file may have: with certificates, and with a key, a
// password or a token.
const (
	maxBundle = 16 << 20
	maxSecret = 1 << 20
)

// readBounded reads a file of so many bytes at most. It may be a pipe that
// nobody writes to: a signal ends the wait.
func readBounded(ctx context.Context, file string, limit int64) ([]byte, error) {
	var data []byte
	read := make(chan error, 1)
	go func() {
		f, err := os.Open(file)
		if err == nil {
			defer f.Close()
			data, err = io.ReadAll(io.LimitReader(f, limit+1))
		}
		if err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("%s has more than %d bytes", file, limit)
		}
		read <- err
	}()
	select {
	case err := <-read:
		return data, err
	case <-ctx.Done():
		return nil, errInterrupted
	}
}

// readSecret reads a file that nobody else should be able to read.
func readSecret(ctx context.Context, file, what string) ([]byte, error) {
	if strings.Contains(file, "PRIVATE KEY") || strings.HasPrefix(file, "{") || strings.HasPrefix(file, "eyJ") {
		return nil, usagef("in place of the name of a file stands %s itself", what).
			hint("it can be seen in the list of processes: write it to a file, or use <(…) of the shell")
	}
	info, statErr := os.Stat(file)
	sayDebug("reading %s in %s", what, file) // which may be a pipe
	data, err := readBounded(ctx, file, maxSecret)
	switch {
	case errors.Is(err, errInterrupted):
		return nil, err
	case err != nil:
		return nil, usagef("reading %s: %w", what, err)
	}
	if statErr == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		sayMarked(warn, "%s can be read by everybody on this host (mode %#o)", file, info.Mode().Perm())
	}
	return data, nil
}

// keyFlags are the flags that go together with a private key.
type keyFlags struct{ key, cert, password string }

// readKey reads a private key in PEM. If it is encrypted and no password is
// given it asks for one.
func readKey(ctx context.Context, file, passwordFile string, flags keyFlags) (crypto.Signer, error) {
	data, err := readSecret(ctx, file, "the private key")
	if err != nil {
		return nil, err
	}
	var given []byte
	if passwordFile != "" {
		if given, err = readPassword(ctx, passwordFile); err != nil {
			return nil, err
		}
	}
	var notAsked error
	encrypted := false
	key, err := pemutil.ParseKey(data, pemutil.WithFilename(file), pemutil.WithFirstBlock(),
		pemutil.WithPasswordPrompt("Please enter the password to decrypt "+file, func(question string) (password []byte, err error) {
			if encrypted = true; given != nil {
				return given, nil
			}
			password, notAsked = askPassword(ctx, flags.password, question)
			return password, notAsked
		}))
	hint := fmt.Sprintf("%s names a PEM file with the private key of the certificate in %s", flags.key, flags.cert)
	switch {
	case notAsked != nil:
		return nil, notAsked
	case encrypted && isWrongPassword(err) && given != nil:
		return nil, usagef("the password in %s does not fit the key in %s", passwordFile, file)
	case encrypted && isWrongPassword(err):
		return nil, usagef("the password does not fit the key in %s", file)
	case err != nil:
		return nil, usagef("%s is not a private key that can be read: %w", file, err).hint("%s", hint)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, usagef("%s holds no private key that can sign", file).hint("%s", hint)
	}
	return signer, nil
}

// isWrongPassword tells from the error of pemutil, about a key that is
// encrypted, whether the password is wrong. One wrong password in 256 leaves
// what ends as a key must (RFC 8018, section 6.1.1) and only cannot be parsed.
func isWrongPassword(err error) bool {
	return errors.Is(err, x509.IncorrectPasswordError) || err != nil && strings.HasPrefix(err.Error(), "error parsing ")
}

// readPassword reads a password from a file; white space at its end is not
// part of it, as with step.
func readPassword(ctx context.Context, file string) ([]byte, error) {
	data, err := readSecret(ctx, file, "the password")
	if err != nil {
		return nil, err
	}
	password := bytes.TrimRight(data, " \t\r\n\v\f")
	if len(password) == 0 {
		return nil, usagef("the password file %s is empty", file)
	}
	return password, nil
}
