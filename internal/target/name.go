package target

import (
	"encoding/asn1"
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/net/idna"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17} // RFC 5280, section 4.2.1.6

// The types of a GeneralName that are compared, by their tags.
const (
	emailName = 1
	dnsName   = 2
	uriName   = 6
	ipName    = 7
)

// A name is a subject alternative name of one type.
type name struct {
	tag       uint8
	canonical string                          // what an equal name is in canonical form
	canon     func(raw string) (string, bool) // brings a name of a certificate into that form
	text      string                          // for a person, and in journals
	part      []byte                          // what is in every certificate with this name, whatever the case of ASCII letters
}

// isIn tells whether a name is among those of the extension. Names are compared
// as what they are, never through the text form of another type.
func (n name) isIn(extension []byte) bool {
	names := cryptobyte.String(extension)
	if !names.ReadASN1(&names, cryptobyteasn1.SEQUENCE) {
		return false
	}
	for !names.Empty() {
		var raw cryptobyte.String
		var tag cryptobyteasn1.Tag
		if !names.ReadAnyASN1(&raw, &tag) {
			return false
		}
		if tag != cryptobyteasn1.Tag(n.tag).ContextSpecific() {
			continue
		}
		if canonical, ok := n.canon(string(raw)); ok && canonical == n.canonical {
			return true
		}
	}
	return false
}

// hostAndPort matches what names a port beside a host.
var hostAndPort = regexp.MustCompile(`^([^/@:\[\]]+|\[.*\]):[0-9]+$`)

// parseName reads a subject alternative name as step does (x509util.SplitSANs):
// it is an IP address, a URI, an e-mail address, or else a DNS name.
func parseName(text string) (name, error) {
	if bare, bracketed := strings.CutPrefix(strings.TrimSuffix(text, "]"), "["); bracketed {
		return name{}, problem.New("%.64q is not an IP address", text).Hint("write it without brackets: %.64s", bare)
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		return ipAddress(ip, text)
	}
	if hostAndPort.MatchString(strings.TrimRight(text, ".")) {
		return name{}, problem.New("%.64q names a port, and certificates do not", text).Hint("leave out the colon and the port")
	}
	if u, err := url.Parse(text); err == nil && u.Scheme != "" {
		return uri(text, u)
	}
	if strings.Contains(text, "://") {
		return name{}, problem.New("%.64q is not a URI", text)
	}
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		return email(text, text[:i], text[i+1:])
	}
	return dns(text)
}

func ipAddress(ip netip.Addr, text string) (name, error) {
	if ip.Zone() != "" {
		return name{}, problem.New("the IP address %.64q has a zone, which no certificate names", text).Hint("leave out the percent sign and the zone")
	}
	ip = ip.Unmap()
	return name{tag: ipName, canonical: ip.String(), canon: canonicalIP, text: ip.String(), part: ip.AsSlice()}, nil
}

func canonicalIP(raw string) (string, bool) {
	ip, ok := netip.AddrFromSlice([]byte(raw))
	return ip.Unmap().String(), ok
}

func dns(text string) (name, error) {
	canonical, err := canonicalHost(text)
	if err != nil || canonical == "" {
		return name{}, problem.New("%.64q is not a DNS name", text)
	}
	if canonical != text { // perhaps a name of another type: a dot behind an IP address is gone, U+FF20 is an @
		if again, err := parseName(canonical); err != nil || again.tag != dnsName {
			return name{}, problem.New("%.64q is not a DNS name", text).Hint("it means %.64q, which is none", canonical)
		}
	}
	return name{tag: dnsName, canonical: canonical, canon: canonicalDNS, text: canonical, part: []byte(canonical)}, nil
}

func canonicalDNS(raw string) (string, bool) {
	return lowerASCII(strings.TrimSuffix(raw, ".")), true
}

// international maps a name as registries do, and looks it up as it is, wildcards
// and underscores included (UTS 46).
var international = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// canonicalHost writes a DNS name, in either international form, in ASCII and in
// lower case, without a dot at the end.
func canonicalHost(text string) (string, error) {
	if !isASCII(text) {
		var err error
		if !utf8.ValidString(text) {
			return "", errors.New("it is not UTF-8")
		}
		if text, err = international.ToASCII(text); err != nil {
			return "", err
		}
	}
	canonical, _ := canonicalDNS(text)
	if strings.HasSuffix(canonical, ".") || strings.TrimSpace(canonical) != canonical {
		return "", errors.New("its last label is empty, or ends with white space")
	}
	return canonical, nil
}

func email(text, local, domain string) (name, error) {
	host, err := canonicalHost(domain)
	if err != nil || local == "" || host == "" || !isASCII(local) {
		return name{}, problem.New("%.64q is not an e-mail address", text)
	}
	address := local + "@" + host
	return name{tag: emailName, canonical: address, canon: canonicalEmail, text: address, part: []byte(address)}, nil
}

// canonicalEmail leaves the local part as it is (RFC 5280, section 7.5).
func canonicalEmail(raw string) (string, bool) {
	i := strings.LastIndexByte(raw, '@')
	if i < 0 {
		return "", false
	}
	domain, _ := canonicalDNS(raw[i+1:])
	return raw[:i+1] + domain, true
}

func uri(text string, u *url.URL) (name, error) {
	if !isASCII(text) {
		text = u.String() // as crypto/x509 writes it into a certificate
	}
	canonical, ok := canonicalURI(text)
	if !ok {
		return name{}, problem.New("%.64q is not a URI", text)
	}
	return name{tag: uriName, canonical: canonical, canon: canonicalURI, text: canonical, part: []byte(canonical)}, nil
}

// canonicalURI writes scheme and host in lower case. The rest counts to the byte
// (RFC 5280, section 7.4).
func canonicalURI(raw string) (string, bool) {
	scheme, rest, ok := strings.Cut(raw, ":")
	if !ok {
		return "", false
	}
	rest, hasHost := strings.CutPrefix(rest, "//")
	if !hasHost {
		return lowerASCII(scheme) + ":" + rest, true
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host := strings.LastIndexByte(rest[:end], '@') + 1
	return lowerASCII(scheme) + "://" + rest[:host] + lowerASCII(rest[host:end]) + rest[end:], true
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}

func lowerASCII(text string) string { return string(lower([]byte(text))) }
