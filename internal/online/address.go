package online

import (
	"encoding/hex"
	"net/url"
	"slices"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// ParseURL reads the address of a CA: an HTTPS URL, or a host with or without a
// port. It writes the host in lower case, as step-ca compares it, and drops the
// path.
func ParseURL(s string) (*url.URL, error) {
	full := s
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") != strings.HasPrefix(u.Host, "["):
		afterUser := s[strings.LastIndex(s, "@")+1:] // before the @ may be a password
		return nil, problem.New("%q is not the URL of a CA", afterUser).Hint("write https://HOST:PORT")
	case !strings.EqualFold(u.Scheme, "https"):
		return nil, problem.New("%s is not an HTTPS URL", u.Redacted()).Hint("step-ca serves HTTPS: write https://%s", u.Host)
	case u.User != nil:
		return nil, problem.New("%s holds a user name", u.Redacted()).Hint("write https://%s", u.Host)
	}
	host := strings.ToLower(u.Host)
	if u.Port() == "443" {
		host = strings.TrimSuffix(host, ":443")
	}
	return &url.URL{Scheme: "https", Host: strings.TrimSuffix(host, ":")}, nil
}

// checkProxy makes sure that the variable that names a proxy can be read:
// net/http would connect directly, or to something else. The URL of a proxy may
// lack its scheme, and is not shown, because it may hold a password.
func checkProxy(getenv func(string) string) error {
	name := "HTTPS_PROXY" // which goes first
	if getenv(name) == "" {
		name = "https_proxy"
	}
	value := getenv(name)
	if value == "" {
		return nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return problem.New("the variable %s is not the URL of a proxy", name).Hint("write http://HOST:PORT")
	}
	return nil
}

// ParseFingerprint reads a SHA-256 fingerprint: 64 hexadecimal digits in either
// case, with or without colons. It returns them in lower case, without colons.
func ParseFingerprint(s string) (string, error) {
	sum := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
		return "", problem.New("%.100q is not a SHA-256 fingerprint", s).
			Hint("'step certificate fingerprint root_ca.crt' prints it: 64 hexadecimal digits")
	}
	return sum, nil
}
