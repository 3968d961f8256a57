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

var (
	decimalSerial = regexp.MustCompile(`^[1-9][0-9]*$`)
	hexSerial     = regexp.MustCompile(`^0[xX][0-9a-fA-F]+$`)
	colonSerial   = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+$`)
	bareHexSerial = regexp.MustCompile(`^[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*$`)
)

// parseSerial reads a serial number: decimal, hexadecimal behind 0x, or
// hexadecimal bytes between colons. Everything that could be meant in two ways
// is refused with a hint, because step-ca takes any number at all and says
// "revoked" to it. All errors are usage errors.
func parseSerial(s string) (*big.Int, error) {
	s = strings.TrimSpace(s)
	digits, base := s, 10
	switch {
	case decimalSerial.MatchString(s):
	case hexSerial.MatchString(s):
		digits, base = s[2:], 16
	case colonSerial.MatchString(s):
		digits, base = strings.ReplaceAll(s, ":", ""), 16
	default:
		return nil, badSerial(s)
	}
	// Long before it is parsed: a megabyte of digits takes minutes.
	if len(digits) > 128 {
		return nil, usagef("the serial number with %d digits is too long", len(digits)).hint(serialBounds)
	}
	n, _ := new(big.Int).SetString(digits, base)
	switch {
	case n.Sign() == 0:
		return nil, usagef("the serial number %s is zero", s).hint(serialBounds)
	case n.BitLen() > maxSerialBits:
		return nil, usagef("the serial number %s has %d octets", s, (n.BitLen()+7)/8).hint(serialBounds)
	}
	return n, nil
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
	case decimalSerial.MatchString(bare):
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
