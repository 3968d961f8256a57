package target

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3} // RFC 5280, appendix A.1

// readSubject takes a common name, which is compared as it is.
func (*questions) readSubject(name string) (condition, error) {
	return condition{
		text: name,
		// As UTF8String or PrintableString, as TeletexString, and as BMPString.
		quick: anyOf([]byte(name), latin1(name), bmp(name)),
		holds: func(cert *x509.Certificate, _ string, _ time.Time) bool {
			for _, a := range cert.Subject.Names {
				if text, isText := a.Value.(string); isText && a.Type.Equal(oidCommonName) && text == name {
					return true
				}
			}
			return false
		},
	}, nil
}

// latin1 writes a text in ISO 8859-1, as crypto/x509 reads a TeletexString. It has
// no other characters: without them nothing matches.
func latin1(text string) (out []byte) {
	for _, r := range text {
		out = append(out, byte(r))
	}
	return out
}

// bmp writes a text as a BMPString (ITU-T X.690, section 8.23.8).
func bmp(text string) (out []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		out = append(out, byte(unit>>8), byte(unit))
	}
	return out
}

// readKey takes the public key in a file, or its SHA-256.
func (q *questions) readKey(file string) (condition, error) {
	if digest, ok := strings.CutPrefix(file, keyDigest); ok {
		return digestCondition(digest)
	}
	key, err := input.KeyFile{File: file, PasswordFile: q.passwordFile, Flag: "--where key", PasswordFlag: "--key-password-file"}.Public(q.ctx)
	if err != nil {
		return condition{}, err
	}
	return keyCondition(key)
}

// keyDigest stands before the SHA-256 of a public key as a certificate has it
// (SubjectPublicKeyInfo, RFC 5280, section 4.1.2.7), in hexadecimal.
const keyDigest = "sha256:"

func digestCondition(digest string) (condition, error) {
	wanted, err := hex.DecodeString(digest)
	if err != nil || len(wanted) != sha256.Size {
		return condition{}, problem.New("%.80q is not a SHA-256 in hexadecimal", digest)
	}
	has := func(key []byte) bool { sum := sha256.Sum256(key); return bytes.Equal(sum[:], wanted) }
	return condition{
		text:  keyDigest + hex.EncodeToString(wanted),
		quick: func(r record, _ time.Time) bool { return has(r.key) },
		holds: func(cert *x509.Certificate, _ string, _ time.Time) bool { return has(cert.RawSubjectPublicKeyInfo) },
	}, nil
}

// KeyTerm is the term of a query for the certificates that have the public key of
// this one.
func KeyTerm(cert *x509.Certificate) string {
	return fmt.Sprintf("key=%s%x", keyDigest, sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

// keyCondition holds for certificates with a public key, however it is encoded
// there.
func keyCondition(key crypto.PublicKey) (condition, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	wanted, comparable := key.(interface{ Equal(crypto.PublicKey) bool })
	part := partOf(key)
	if err != nil || !comparable || part == nil {
		return condition{}, problem.New("there are no certificates with a key of this type (%T)", key)
	}
	return condition{
		text:  fmt.Sprintf("%s%x", keyDigest, sha256.Sum256(der)),
		quick: anyOf(part),
		holds: func(cert *x509.Certificate, _ string, _ time.Time) bool {
			return cert.PublicKey != nil && wanted.Equal(cert.PublicKey)
		},
	}, nil
}

// partOf returns what is in every encoding of a public key: the modulus, the x
// coordinate of the point, or the key itself.
func partOf(key crypto.PublicKey) []byte {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.Bytes()
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return nil
		}
		return point[1 : 1+len(point)/2]
	case ed25519.PublicKey:
		return key
	}
	return nil
}

// oidProvisioner is that of step-ca's extension with the provisioner
// (authority/provisioner/extension.go), and derProvisioner the same in DER.
var (
	oidProvisioner = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 1}
	derProvisioner = mustMarshal(oidProvisioner)
)

func mustMarshal(oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return der
}

// readProvisioner takes the name of a provisioner.
func (*questions) readProvisioner(name string) (condition, error) {
	isNamed := anyOf([]byte(name))
	return condition{
		text: name,
		quick: func(r record, now time.Time) bool {
			return isNamed(r, now) || !bytes.Contains(r.der, derProvisioner) // then the database may know
		},
		holds: func(_ *x509.Certificate, provisioner string, _ time.Time) bool { return provisioner == name },
	}, nil
}

// provisionerOf returns the name of the provisioner that has issued a
// certificate, as its extension says. It is not known if there is none.
func provisionerOf(cert *x509.Certificate) (name string, known bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidProvisioner) {
			return readProvisionerName(e)
		}
	}
	return "", false
}

func readProvisionerName(e pkix.Extension) (string, bool) {
	var p struct {
		Type         int
		Name         []byte
		CredentialID []byte
		KeyValues    []string `asn1:"optional,omitempty"`
	}
	if _, err := asn1.Unmarshal(e.Value, &p); err != nil {
		return "", false
	}
	return string(p.Name), true
}

// readAfter takes the earliest time at which a certificate may have been issued.
func (q *questions) readAfter(text string) (condition, error) {
	b, err := parseBound(text)
	if err != nil {
		return condition{}, err
	}
	if t := b.from(q.now); q.after.IsZero() || t.Before(q.after) {
		q.after = t
	}
	return timeCondition(b, func(notBefore, bound time.Time) bool { return !notBefore.Before(bound) }), nil
}

// readBefore takes the time before which a certificate must have been issued.
func (q *questions) readBefore(text string) (condition, error) {
	b, err := parseBound(text)
	if err != nil {
		return condition{}, err
	}
	if t := b.from(q.now); q.before.IsZero() || t.After(q.before) {
		q.before = t
	}
	return timeCondition(b, func(notBefore, bound time.Time) bool { return notBefore.Before(bound) }), nil
}

func timeCondition(b bound, fits func(notBefore, bound time.Time) bool) condition {
	return condition{
		text:  b.String(),
		quick: func(r record, now time.Time) bool { return fits(r.notBefore, b.from(now)) },
		holds: func(cert *x509.Certificate, _ string, now time.Time) bool { return fits(cert.NotBefore, b.from(now)) },
	}
}

// A bound is a time, or how long ago it was.
type bound struct {
	at  time.Time
	ago time.Duration
}

func (b bound) from(now time.Time) time.Time {
	if b.at.IsZero() {
		return now.Add(-b.ago)
	}
	return b.at
}

// String writes the bound so that it is the same however it was written.
func (b bound) String() string {
	if b.at.IsZero() {
		return b.ago.String()
	}
	return b.at.UTC().Format(time.RFC3339Nano)
}

// parseBound reads a time in RFC 3339, a date, which begins in UTC, or a duration.
func parseBound(text string) (bound, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return bound{at: t}, nil
		}
	}
	ago, err := time.ParseDuration(text)
	if err == nil && ago > 0 {
		return bound{ago: ago}, nil
	}
	return bound{}, problem.New("%.64q is not a time", text).
		Hint("write 2026-11-20T08:00:00Z (RFC 3339), a date like 2026-11-20, which begins in UTC, or a duration before now like 36h")
}

// readSAN takes a subject alternative name.
func (*questions) readSAN(text string) (condition, error) {
	name, err := parseName(text)
	if err != nil {
		return condition{}, err
	}
	return condition{
		text: name.text, quick: anyOf(name.part),
		holds: func(cert *x509.Certificate, _ string, _ time.Time) bool {
			for _, e := range cert.Extensions {
				if e.Id.Equal(oidSAN) && name.isIn(e.Value) {
					return true
				}
			}
			return false
		},
	}, nil
}
