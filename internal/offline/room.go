package offline

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A tooLarge is the error that the CA's database has no room for a CRL.
type tooLarge struct {
	size int64 // of its record, in bytes
	room database.Room
}

func (e *tooLarge) Error() string {
	return fmt.Sprintf("a CRL with everything that is revoked takes %s bytes, and the CA's database has room for %s",
		ui.Number(int(e.size)), ui.Number(int(e.room.Bytes)))
}

func (e *tooLarge) hint() string {
	return fmt.Sprintf("step-ca does not start while that is so: %q in the database makes room, or switch \"crl\" off in ca.json", e.room.Remedy)
}

// checkFits returns a tooLarge for the record of a CRL that there is no room for.
func checkFits(size int64, room database.Room) error {
	if room.Bytes == 0 || size <= room.Bytes {
		return nil
	}
	return &tooLarge{size: size, room: room}
}

// checkRoom makes sure that the CA's database has room for the next CRL, before
// anything is revoked that would make it too large. It only takes note of one
// that is too large already, or that is meant to be.
func (ca *CA) checkRoom(ctx context.Context, list *target.List) error {
	if !ca.settings.CA.CRL.IsEnabled() {
		return nil
	}
	var size, grows int64
	err := ca.withTimeout(ctx, func() (err error) {
		if ca.store.room, err = database.CRLRoom(ca.settings.CA.DB); err != nil || ca.store.room.Bytes == 0 {
			return err
		}
		size, grows, err = ca.crlSize(list)
		return err
	})
	if err != nil {
		return err
	}
	if !errors.As(checkFits(size, ca.store.room), &ca.overflow) {
		return nil
	}
	switch {
	case ca.config.LookOnly || grows == 0:
	case ca.config.Force:
		ui.Warn("%v", ca.overflow)
	default:
		return problem.New("%w", ca.overflow).Hint("%s", ca.overflow.hint()).Hint("--force revokes anyway, and leaves the CRL as it is")
	}
	return nil
}

// What a CRL takes beyond its entries and the issuer's name: extensions, and the
// signature of an RSA key of 4096 bits. And what its record takes beyond the CRL
// in base64 (db.CertificateRevocationListInfo in JSON).
const (
	crlFrame    = 900
	recordFrame = 128
)

// crlSize returns the size of the record of a CRL with everything that is revoked
// and the targets that are not yet, rounded up by some 1 KiB, and how much of it
// these targets make.
func (ca *CA) crlSize(list *target.List) (size, grows int64, err error) {
	revoked, err := ca.store.GetRevokedCertificates()
	if err != nil {
		return 0, 0, problem.New("reading what is revoked: %w", err)
	}
	size = crlFrame + int64(len(ca.chain[0].RawSubject))
	known := make(map[string]bool, len(*revoked))
	for _, r := range *revoked {
		if known[r.Serial] = true; !isExpired(r.ExpiresAt) {
			size += entrySize(r.Serial, r.ReasonCode)
		}
	}
	for _, t := range list.All {
		serial := t.Serial.String()
		if !t.Done && ca.config.ReasonCode != revocation.RemoveFromCRL && !known[serial] && (t.Cert == nil || !isExpired(t.Cert.NotAfter)) {
			grows += entrySize(serial, ca.config.ReasonCode)
		}
	}
	size += grows
	return int64(base64.StdEncoding.EncodedLen(int(size))) + recordFrame, grows, nil
}

// entrySize returns the size of an entry of a CRL in DER (RFC 5280, section 5.1):
// a sequence of the number, the time and, with a reason, an extension.
func entrySize(serial string, reasonCode int) int64 {
	const header, utcTime, reason = 2, 2 + 13, 14
	number := header + 1
	if n, ok := new(big.Int).SetString(serial, 10); ok {
		number += n.BitLen() / 8
	}
	if reasonCode == 0 {
		return int64(header + number + utcTime)
	}
	return int64(header + number + utcTime + reason)
}
