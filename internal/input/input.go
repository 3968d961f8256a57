// Package input reads the files that flags name: bounded, interruptible, and
// without showing what is in them.
package input

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"strings"

	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// The most bytes that a file may have.
const (
	maxCertificates = 16 << 20
	maxSecret       = 1 << 20 // a key, a password or a token
)

// maxParts bounds how many parts of a key are looked for in what others say. An
// RSA key of 8192 bits has a hundred lines.
const maxParts = 200

// Certificates reads all certificates of the file that a flag names: at least
// one. Its errors say what is in the file instead, but do not show it: it may be
// a key.
func Certificates(ctx context.Context, file, flag string) ([]*x509.Certificate, error) {
	if file == "" {
		return nil, problem.New("%s has no value", flag)
	}
	data, err := readBounded(ctx, file, maxCertificates)
	switch {
	case errors.Is(err, problem.ErrInterrupted):
		return nil, err
	case err != nil:
		return nil, problem.New("reading the certificate: %w", err)
	}
	certs, err := pemutil.ParseCertificateBundle(data)
	if err != nil {
		return nil, noCertificate(file, data).Hint("%s names a PEM file with a certificate in it", flag)
	}
	return certs, nil
}

// noCertificate says what is in a file without a certificate that can be read.
func noCertificate(file string, data []byte) *problem.Problem {
	block, _ := pem.Decode(data)
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return problem.New("%s is empty", file)
	case block == nil:
		return problem.New("%s is not a certificate", file)
	case block.Type == "CERTIFICATE":
		return problem.New("the certificate in %s is malformed", file)
	}
	return problem.New("%s holds no certificate, but PEM of type %.64q", file, block.Type)
}

// Secret reads a file that nobody else should be able to read, and warns if
// everybody can. Messages name its contents by what, as in "the private key". They
// name a file that is not there by its flag alone: the value may be the secret
// itself, in a variable of a CI job for instance.
func Secret(ctx context.Context, file, flag, what string) ([]byte, error) {
	switch {
	case file == "":
		return nil, problem.New("the name of the file with %s is empty", what)
	case strings.Contains(file, "PRIVATE KEY"), strings.HasPrefix(file, "{"), strings.HasPrefix(file, "eyJ"):
		return nil, problem.New("the value is %s itself, not the name of a file", what).
			Hint("it can be seen in the list of processes: write it to a file, or use <(…) of the shell")
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, notThere(err, file, flag, what)
	}
	ui.Debug("reading %s in %s", what, file) // before it is read: a pipe may keep it waiting
	data, err := readBounded(ctx, file, maxSecret)
	switch {
	case errors.Is(err, problem.ErrInterrupted):
		return nil, err
	case err != nil:
		return nil, problem.New("reading %s: %w", what, err)
	}
	hide(data)
	if info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		ui.Warn("%s can be read by everybody on this host (mode %#o)", file, info.Mode().Perm())
	}
	return data, nil
}

// longLine matches what is secret in a key: base64 in PEM and in JSON.
var longLine = regexp.MustCompile(`[\w+/=-]{16,}`)

// hide keeps what was read out of what others say later: a key's parts, and a
// password or token as a whole.
func hide(data []byte) {
	text := strings.TrimSpace(string(data))
	if !strings.HasPrefix(text, "{") && !strings.Contains(text, "-----BEGIN ") {
		problem.Hide(text)
		return
	}
	for _, part := range longLine.FindAllString(text, maxParts) {
		problem.Hide(part)
	}
}

// notThere words why there is no file with this name, without the name.
func notThere(err error, file, flag, what string) error {
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		err = named.Err
	}
	// By cli-utils' rules (step.SetEnvVar).
	variable := "STEP_" + strings.ToUpper(strings.ReplaceAll(strings.TrimLeft(flag, "-"), "-", "_"))
	if os.Getenv(variable) == file {
		flag += " (" + variable + ")"
	}
	return problem.New("reading %s: the file that %s names: %w", what, flag, err).
		Hint("its name is not shown: it might be %s itself", what)
}

// Password reads a password from the file that a flag names. As with step, white
// space at the end of the file is not part of it. It is not empty.
func Password(ctx context.Context, file, flag string) ([]byte, error) {
	data, err := Secret(ctx, file, flag, "the password")
	if err != nil {
		return nil, err
	}
	password := bytes.TrimRight(data, " \t\r\n\v\f")
	if len(password) == 0 {
		return nil, problem.New("the password file %s is empty", file)
	}
	return password, nil
}

// readBounded reads a file of so many bytes at most.
func readBounded(ctx context.Context, file string, limit int64) ([]byte, error) {
	var data []byte
	err := Await(ctx, func() error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("%s has more than %d bytes", file, limit)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Await calls a function that reads, maybe from a pipe that nobody writes to.
// When the context ends it leaves the function behind, still reading, and
// returns problem.ErrInterrupted.
func Await(ctx context.Context, read func() error) error {
	done := make(chan error, 1)
	go func() { done <- read() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return problem.ErrInterrupted
	}
}
