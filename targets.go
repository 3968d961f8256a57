package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
)

// A target is one certificate to revoke. It is small, because there may be
// a million.
type target struct {
	serial serialNumber
	done   bool         // the journal says that it is revoked
	cert   *certificate // nil where only the serial number is known
}

// A certificate is what is known about the certificate of a target.
type certificate struct {
	subject  string
	sans     []string
	notAfter time.Time
	source   string // where it comes from, for messages
	der      []byte // until it is shown to be this CA's
}

func certificateOf(cert *x509.Certificate, source string) *certificate {
	return &certificate{cert.Subject.String(), sansOf(cert), cert.NotAfter, source, cert.Raw}
}

// sansOf are the subject alternative names of a certificate.
func sansOf(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// targets are what is to be revoked, in the order in which it was named. With a
// map to find them in, a million take some 90 MB.
type targets struct {
	list  []target
	index map[serialNumber]uint32 // of list, while it is still needed
}

// add adds a target, unless it is there. What is known of it completes what was
// known before.
func (t *targets) add(serial serialNumber, cert *certificate) (isNew bool) {
	i, found := t.index[serial]
	switch {
	case !found:
		t.index[serial] = uint32(len(t.list))
		t.list = append(t.list, target{serial: serial, cert: cert})
	case t.list[i].cert == nil:
		t.list[i].cert = cert
	}
	return !found
}

// softMemoryLimit keeps a run online with a million serial numbers below 150 MB
// of memory: Go's collector runs as often as that takes. Offline the authority
// and its database need more.
const softMemoryLimit = 100 << 20

// readTargets reads and checks everything that is to be revoked. A certificate
// that is named twice is one target.
func readTargets(ctx context.Context, o *options) (*targets, error) {
	if o.from != "" && !o.offline {
		debug.SetMemoryLimit(softMemoryLimit)
	}
	t := &targets{index: map[serialNumber]uint32{}}
	for _, file := range o.certFiles {
		certs, err := readBundle(ctx, file, "--cert")
		if err != nil {
			return nil, err
		}
		serial, ok := serialOf(certs[0].SerialNumber)
		switch {
		case certs[0].IsCA:
			return nil, usagef("the first certificate in %s is that of a CA (%s)", file, certs[0].Subject).
				hint("step-ca revokes the certificates that it issues, not those of CAs")
		case !ok:
			return nil, usagef("the certificate in %s has no valid serial number", file).hint(serialBounds)
		}
		t.add(serial, certificateOf(certs[0], file))
		o.clientChain = certs
	}
	if len(o.serials) == 0 && len(o.certFiles) == 0 && o.from == "" {
		serial, err := ask(ctx, "a serial number, --cert or --from", "What is the serial number of the certificate to revoke? (`step certificate inspect FILE` shows it)",
			func(s string) error { _, err := parseSerial(s); return err })
		if err != nil {
			return nil, err
		}
		o.serials = []string{serial}
	}
	for _, arg := range o.serials {
		serial, err := parseSerial(arg)
		if err == nil {
			err = o.checkSize(serial)
		}
		if err != nil {
			return nil, err
		}
		t.add(serial, nil)
	}
	if o.from == "" {
		return t, nil
	}
	return t, readFrom(ctx, o, t)
}

// checkSize refuses what cannot be the serial number of an X.509 certificate of
// step-ca.
func (o *options) checkSize(serial serialNumber) error {
	if !serial.small() || o.allowUnknown {
		return nil
	}
	return usagef("the serial number %s is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits", serial).
		hint("for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown")
}

// shownTargets is how many targets a question shows.
const shownTargets = 5

// confirmTargets asks whether to revoke what nobody has typed one by one.
func confirmTargets(ctx context.Context, o *options, list []target, left int) error {
	if o.from == "" || o.force || o.dryRun {
		return nil
	}
	if err := checkTerminal("--force"); err != nil {
		return err
	}
	say("%s to be revoked:", count(left, "certificate is", "certificates are"))
	say("  CA: %s", o.caName())
	say("  Reason: %s", describeReason(o.reasonCode.code, o.reason))
	shown := 0
	for _, t := range list {
		if t.done {
			continue
		}
		if shown++; shown > shownTargets && left > shown {
			say("  … and %s more", humanize.Comma(int64(left-shown+1)))
			break
		}
		if line := "  " + t.serial.String(); t.cert != nil {
			say("%s %s", line, t.cert.subject)
		} else {
			say("%s", line)
		}
	}
	yes, err := confirm(ctx, "--force", "Revoke "+count(left, "certificate", "certificates")+"?")
	if err == nil && !yes {
		err = errNotConfirmed
	}
	return err
}

var errNotConfirmed = failf("not confirmed: nothing was revoked")

// count is a number with what it counts.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(int64(n)) + " " + many
}

// checkIssued makes sure that the CA has issued every certificate in hand.
// Whether it has expired does not matter.
func checkIssued(ctx context.Context, o *options, ca authority, list []target) error {
	if !slices.ContainsFunc(list, func(t target) bool { return t.cert != nil && t.cert.der != nil }) {
		return nil
	}
	var issuers []*x509.Certificate
	if !o.allowUnknown {
		var err error
		if issuers, err = ca.Issuers(ctx); err != nil {
			return err
		}
	}
	var first *problem
	others := 0
	for i := range list {
		known := list[i].cert
		if known == nil || known.der == nil {
			continue
		}
		cert, err := x509.ParseCertificate(known.der)
		if err != nil {
			return err
		}
		known.der = nil
		switch {
		case o.allowUnknown || issuedByAny(cert, issuers):
		case first != nil:
			others++
		default:
			first = failf("the certificate in %s was not issued by this CA but by %q", known.source, cert.Issuer)
		}
	}
	if first == nil {
		return nil
	}
	if others > 0 {
		first.error = fmt.Errorf("%w, and %s", first.error, count(others, "other was not either", "others were not either"))
	}
	return first.hint("revoke it at its own CA; --allow-unknown tries it here all the same")
}

func issuedByAny(cert *x509.Certificate, issuers []*x509.Certificate) bool {
	for _, issuer := range issuers {
		if bytes.Equal(cert.RawIssuer, issuer.RawSubject) && cert.CheckSignatureFrom(issuer) == nil {
			return true
		}
	}
	return false
}
