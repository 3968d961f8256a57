package main

import (
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxSerialBits bounds a serial number: 20 octets (RFC 5280, section 4.1.2.2).
const maxSerialBits = 20 * 8

// minSerialBits is where the serial numbers of step-ca begin in practice:
// its X.509 ones are 128 random bits, while SSH ones have at most 64.
const minSerialBits = 65

// A serialNumber is a positive number in 20 octets, big-endian. It can be
// compared, and a million of them take 20 MB and no work of the collector.
type serialNumber [maxSerialBits / 8]byte

// String writes it in decimal, as step-ca does.
func (n serialNumber) String() string { return n.big().String() }

func (n serialNumber) big() *big.Int { return new(big.Int).SetBytes(n[:]) }

// small tells whether it is hardly one of an X.509 certificate of step-ca.
func (n serialNumber) small() bool { return n.big().BitLen() < minSerialBits }

// serialOf makes one of a number, which must be positive and fit.
func serialOf(number *big.Int) (n serialNumber, ok bool) {
	if number.Sign() <= 0 || number.BitLen() > maxSerialBits {
		return n, false
	}
	number.FillBytes(n[:])
	return n, true
}

var (
	hexSerial     = regexp.MustCompile(`^0[xX][0-9a-fA-F]+$`)
	colonSerial   = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+$`)
	bareHexSerial = regexp.MustCompile(`^[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*$`)
)

// isDecimal tells whether s is a positive number without leading zeros. There
// may be a million of them to look at.
func isDecimal(s string) bool {
	return s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == ""
}

// parseSerial reads a serial number: decimal, hexadecimal behind 0x, or
// hexadecimal bytes between colons. Everything that could be meant in two ways
// is refused with a hint, because step-ca takes any number at all and says
// "revoked" to it. All errors are usage errors.
func parseSerial(s string) (serialNumber, error) {
	var none serialNumber
	s = strings.TrimSpace(s)
	digits, base := s, 10
	switch {
	case isDecimal(s):
	case hexSerial.MatchString(s):
		digits, base = s[2:], 16
	case colonSerial.MatchString(s):
		digits, base = strings.ReplaceAll(s, ":", ""), 16
	default:
		return none, badSerial(s)
	}
	// Long before it is parsed: a megabyte of digits takes minutes.
	if len(digits) > 128 {
		return none, usagef("the serial number with %d digits is too long", len(digits)).hint(serialBounds)
	}
	n, _ := new(big.Int).SetString(digits, base)
	switch {
	case n.Sign() == 0:
		return none, usagef("the serial number %s is zero", s).hint(serialBounds)
	case n.BitLen() > maxSerialBits:
		return none, usagef("the serial number %s has %d octets", s, (n.BitLen()+7)/8).hint(serialBounds)
	}
	serial, _ := serialOf(n)
	return serial, nil
}

const serialBounds = "a serial number is positive and has at most 20 octets (RFC 5280)"

// badSerial says why s is not a serial number, and how to write what was
// probably meant. What looks like a token is not repeated.
func badSerial(s string) error {
	bare := strings.TrimLeft(s, "0")
	err := usagef("%q is not a serial number", clip(s, 64))
	switch {
	case s == "":
		return usagef("the serial number is empty").hint("step certificate inspect FILE shows it")
	case strings.HasPrefix(s, "eyJ"):
		return usagef("an argument is a token, not a serial number").hint("use --token-file FILE, or --token")
	case s[0] == '-' || s[0] == '+':
		return err.hint("a serial number is positive and has no sign")
	case bare == "":
		return usagef("the serial number %s is zero", clip(s, 64)).hint(serialBounds)
	case isDecimal(bare):
		return err.hint("write it without leading zeros if it is decimal: %s; write 0x%s if it is hexadecimal", clip(bare, 64), clip(s, 64))
	case strings.EqualFold(s, "0x"):
		return err.hint("hexadecimal digits are missing after %s", s)
	case bareHexSerial.MatchString(s):
		return err.hint("write 0x%s if it is hexadecimal", clip(s, 64))
	case isFileName(s):
		return err.hint("use --cert %s to revoke the certificate in a file", clip(s, 64))
	case strings.Contains(s, "_"):
		return err.hint("write it without underscores")
	}
	return err.hint("write it in decimal, in hexadecimal with 0x in front, or as hexadecimal bytes with colons between them")
}

// isFileName tells whether s names a file, or looks as if it should.
func isFileName(s string) bool {
	switch strings.ToLower(filepath.Ext(s)) {
	case ".crt", ".cer", ".cert", ".pem", ".der", ".key", ".csr", ".txt":
		return true
	}
	if strings.ContainsAny(s, `/\`) {
		return true
	}
	_, err := os.Lstat(s)
	return err == nil
}
