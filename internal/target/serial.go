package target

import (
	"math/big"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

const (
	// maxSerialBits bounds a serial number: 20 octets (RFC 5280, section
	// 4.1.2.2).
	maxSerialBits = 20 * 8
	// minSerialBits is where the serial numbers of step-ca begin in practice: its
	// X.509 ones are 128 random bits, while SSH ones have at most 64.
	minSerialBits = 65
	// maxDigits bounds what is parsed: a megabyte of digits would take minutes.
	maxDigits = 128
)

// A Serial is a serial number: a positive number in 20 octets, big-endian. It is
// comparable, and the collector has no work with a million of them.
type Serial [maxSerialBits / 8]byte

// String writes the number in decimal, as step-ca does.
func (s Serial) String() string { return s.Big().String() }

// Big returns the number.
func (s Serial) Big() *big.Int { return new(big.Int).SetBytes(s[:]) }

// isSmall tells whether the number is hardly that of an X.509 certificate of
// step-ca.
func (s Serial) isSmall() bool { return s.Big().BitLen() < minSerialBits }

// SerialOf makes a serial number of a number. It fails if that is not positive
// or has more than 20 octets.
func SerialOf(n *big.Int) (s Serial, ok bool) {
	if n.Sign() <= 0 || n.BitLen() > maxSerialBits {
		return s, false
	}
	n.FillBytes(s[:])
	return s, true
}

var (
	hexSerial     = regexp.MustCompile(`^0[xX][0-9a-fA-F]+$`)
	colonSerial   = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+$`)
	bareHexSerial = regexp.MustCompile(`^[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*$`)
)

// isDecimal tells whether s is a positive number without leading zeros. It is no
// regular expression because it looks at a million lines.
func isDecimal(s string) bool {
	return s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == ""
}

// Hints for numbers that are no serial numbers.
const (
	serialBounds  = "a serial number is positive and has at most 20 octets (RFC 5280)"
	noSign        = "a serial number is positive and has no sign"
	noUnderscores = "write it without underscores"
)

// ParseSerial reads a serial number: decimal, hexadecimal behind 0x, or
// hexadecimal bytes between colons. It refuses, with a hint, whatever could be
// meant in two ways, because step-ca takes any number and says "revoked" to it.
func ParseSerial(s string) (Serial, error) { return parseSerial(s, nil) }

// parseSerial is ParseSerial. If exists is not nil, it tells whether a word that
// is no serial number names a file.
func parseSerial(s string, exists func(string) bool) (serial Serial, err error) {
	s = strings.TrimSpace(s)
	digits, base := s, 10
	switch {
	case isDecimal(s):
	case hexSerial.MatchString(s):
		digits, base = s[2:], 16
	case colonSerial.MatchString(s):
		digits, base = strings.ReplaceAll(s, ":", ""), 16
	default:
		return serial, badSerial(s, exists)
	}
	if len(digits) > maxDigits {
		return serial, problem.New("the serial number with %d digits is too long", len(digits)).Hint(serialBounds)
	}
	n, _ := new(big.Int).SetString(digits, base)
	if n.Sign() == 0 {
		return serial, problem.New("the serial number %s is zero", s).Hint(serialBounds)
	}
	serial, ok := SerialOf(n)
	if !ok {
		return serial, problem.New("the serial number %s has %d octets", s, (n.BitLen()+7)/8).Hint(serialBounds)
	}
	return serial, nil
}

// badSerial says why s is not a serial number, and how to write what was
// probably meant. It does not repeat what looks like a token.
func badSerial(s string, exists func(string) bool) error {
	bare := strings.TrimLeft(s, "0")
	err := problem.New("%.64q is not a serial number", s)
	switch {
	case s == "":
		return problem.New("the serial number is empty").Hint("step certificate inspect FILE shows it")
	case strings.HasPrefix(s, "eyJ"):
		return problem.New("an argument is a token, not a serial number").Hint("use --token-file FILE, or --token")
	case s[0] == '-' || s[0] == '+':
		return err.Hint(noSign)
	case bare == "":
		return problem.New("the serial number %.64s is zero", s).Hint(serialBounds)
	case isDecimal(bare):
		return err.Hint("write it without leading zeros if it is decimal: %.64s; write 0x%.64s if it is hexadecimal", bare, s)
	case strings.EqualFold(s, "0x"):
		return err.Hint("hexadecimal digits are missing after %s", s)
	case bareHexSerial.MatchString(s):
		return err.Hint("write 0x%.64s if it is hexadecimal", s)
	case looksLikeFile(s) || exists != nil && exists(s):
		return err.Hint("use --cert %.64s to revoke the certificate in a file; for several files repeat --cert, or name their directory with --from", s)
	case strings.HasPrefix(s, "serial="):
		return err.Hint("write the number alone; hexadecimal, as openssl prints it, needs 0x in front")
	case strings.Contains(s, "_"):
		return err.Hint(noUnderscores)
	case isHostName(s):
		return err.Hint("on the CA's host, step revoke --where san=%s revokes what has this name", s).
			Hint("the CA's log has the serial numbers of all that it has issued; what a host presents now: step certificate inspect https://%s", s)
	}
	return err.Hint("write it in decimal, in hexadecimal with 0x in front, or as hexadecimal bytes with colons between them")
}

// hostName matches names of hosts, not only whole ones.
var hostName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)*$`)

// isHostName tells whether s can be the name or the IPv4 address of a host, in which a
// name has no part of more than 63 characters (RFC 1035, section 2.3.4).
func isHostName(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return true
	}
	isLong := func(label string) bool { return len(label) > 63 }
	return len(s) <= 253 && hostName.MatchString(s) && !slices.ContainsFunc(strings.Split(s, "."), isLong)
}

// looksLikeFile tells whether s looks like the name of a file.
func looksLikeFile(s string) bool {
	switch strings.ToLower(filepath.Ext(s)) {
	case ".crt", ".cer", ".cert", ".pem", ".der", ".key", ".csr", ".txt":
		return true
	}
	return strings.ContainsAny(s, `/\`)
}
