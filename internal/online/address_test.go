package online

import (
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want, wantErr string }{
		{in: "https://CA.example.com:9000", want: "https://ca.example.com:9000"},
		{in: "ca.example.com", want: "https://ca.example.com"},
		{in: "ca.example.com:443", want: "https://ca.example.com"},
		{in: "https://ca.example.com:443/1.0/revoke#x", want: "https://ca.example.com"},
		{in: "https://[::1]:9000/", want: "https://[::1]:9000"},
		{in: "ca.example.com:", want: "https://ca.example.com"},
		{in: "https://[::1]:", want: "https://[::1]"},
		{in: "::", wantErr: `"::" is not the URL of a CA`},
		{in: "::1", wantErr: `"::1" is not the URL of a CA`},
		{in: ":443", wantErr: `":443" is not the URL of a CA`},
		{in: "ca:443:", wantErr: `"ca:443:" is not the URL of a CA`},
		{in: "http://ca.example.com", wantErr: "http://ca.example.com is not an HTTPS URL"},
		{in: "https://", wantErr: `"https://" is not the URL of a CA`},
		{in: "https://me:hunter2@ca", wantErr: "https://me:xxxxx@ca holds a user name"},
		{in: "https://me:hunter2@c a", wantErr: `"c a" is not the URL of a CA`},
		{in: "ca example", wantErr: `"ca example" is not the URL of a CA`},
	} {
		got, err := ParseURL(tt.in)
		if tt.wantErr != "" {
			checkError(t, err, tt.wantErr, "https://")
			if code := problem.Code(problem.Default(err, problem.Usage)); code != problem.Usage {
				t.Errorf("ParseURL(%q): the code %d is fixed", tt.in, code)
			}
		} else if err != nil || got.String() != tt.want {
			t.Errorf("ParseURL(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		} else if again, err := ParseURL(got.String()); err != nil || again.String() != tt.want {
			t.Errorf("ParseURL(%s) = %v, %v", got, again, err)
		}
	}
}

// TestCheckProxy shows which values of the variable net/http would pass over.
func TestCheckProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ upper, lower, wrong string }{
		{}, {upper: "http://me:hunter2@proxy:3128"}, {upper: "proxy"}, {upper: "proxy:3128", lower: "%"}, {lower: "socks5://[::1]:9"},
		{upper: "http://me:hunter2%3t@proxy", wrong: "HTTPS_PROXY"}, {upper: "me:hunter2%@proxy:3128", lower: "proxy", wrong: "HTTPS_PROXY"},
		{lower: "http://me:hunter2@proxy:x", wrong: "https_proxy"}, {upper: "http://hunter2 @proxy", wrong: "HTTPS_PROXY"},
		{upper: "http://", wrong: "HTTPS_PROXY"}, {lower: "http://:3128", wrong: "https_proxy"}, {upper: "ftp://proxy", wrong: "HTTPS_PROXY"},
	} {
		err := checkProxy(func(name string) string {
			return map[string]string{"HTTPS_PROXY": tt.upper, "https_proxy": tt.lower}[name]
		})
		if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || err.Error() != "the variable "+tt.wrong+" is not the URL of a proxy") {
			t.Errorf("%+v: error %v", tt, err)
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0aF1", 16)
	for _, in := range []string{sum, " " + strings.ToLower(sum) + "\n", strings.ToUpper(sum), strings.TrimSuffix(strings.Repeat("0A:f1:", 16), ":")} {
		if got, err := ParseFingerprint(in); err != nil || got != strings.ToLower(sum) {
			t.Errorf("ParseFingerprint(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0a", sum + "00", sum[:63] + "x", strings.Repeat("ab", 1<<20)} {
		_, err := ParseFingerprint(in)
		checkError(t, err, "is not a SHA-256 fingerprint", "64 hexadecimal digits")
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}
