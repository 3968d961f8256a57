package target

import (
	"context"
	"crypto/x509"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// Sources name certificates.
type Sources struct {
	Serials    []string               // serial numbers, as people write them
	Certs      []string               // files with certificates, the first one of each counts
	From       []string               // files that name many, "-" for standard input, and directories of PEM files
	AllowSmall bool                   // take numbers that are too small for those of step-ca
	Exists     func(word string) bool // whether a file has this name; asked about words of Serials that are none; may be nil
	Agree      func(Claim) error      // whether a line of our own JSON is about this run; may be nil
}

// caHint is for certificates of CAs.
const caHint = "step-ca revokes the certificates that it issues, not CA certificates"

// Read reads and checks everything that is to be revoked. A certificate that is
// named twice is one target. Errors have no exit code, except for
// problem.ErrInterrupted and those of Agree. There are Notes for each of
// Sources.From. Print Notes.LeftOut before an error: it explains why a file names no
// certificate.
func Read(ctx context.Context, s Sources) (*List, []Notes, error) {
	l := &List{}
	for _, file := range s.Certs {
		if err := l.addFile(ctx, file); err != nil {
			return nil, nil, err
		}
	}
	for _, word := range s.Serials {
		serial, err := parseSerial(word, s.Exists)
		if err == nil {
			err = s.checkSize(serial)
		}
		if err != nil {
			return nil, nil, err
		}
		l.Add(serial, nil)
	}
	var all []Notes
	for _, from := range s.From {
		notes, err := l.readFrom(ctx, s, from)
		all = append(all, notes)
		if err != nil {
			return nil, all, err
		}
	}
	return l, all, nil
}

// addFile adds the first certificate of a file.
func (l *List) addFile(ctx context.Context, file string) error {
	certs, err := input.Certificates(ctx, file, "--cert")
	if err != nil {
		return err
	}
	leaf := certs[0]
	serial, ok := SerialOf(leaf.SerialNumber)
	switch {
	case leaf.IsCA:
		return problem.New("the first certificate in %s is a CA certificate (%s)", file, leaf.Subject).Hint(caHint)
	case !ok:
		return problem.New("the certificate in %s has no valid serial number", file).Hint(serialBounds)
	}
	cert := certificateIn(leaf, file)
	if err := l.checkSame(serial, cert); err != nil {
		return err
	}
	l.Add(serial, cert)
	l.Chain = certs
	return nil
}

func certificateIn(cert *x509.Certificate, source string) *Certificate {
	c := CertificateOf(cert)
	c.source, c.der = source, cert.Raw
	return c
}

// checkSize refuses what cannot be the serial number of an X.509 certificate of
// step-ca.
func (s *Sources) checkSize(serial Serial) error {
	if s.AllowSmall || !serial.isSmall() {
		return nil
	}
	return problem.New("the serial number %s is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits", serial).
		Hint(smallHint)
}

const smallHint = "for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown"
