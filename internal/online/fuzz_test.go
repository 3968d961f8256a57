package online

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/errs"
	"go.step.sm/crypto/minica"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// fuzzedSerial is the serial number 4660.
var fuzzedSerial = target.Serial{18: 0x12, 19: 0x34}

// limited ends the program if an input takes longer than any may. The result calls
// it off.
func limited() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// FuzzAnswer takes any answer to a revocation. Only what step-ca says when it has
// revoked the certificate, or had before, is a success, and no part of the token
// is in an error.
func FuzzAnswer(f *testing.F) {
	const already = `{"status":400,"message":"The request could not be completed: certificate with serial number '4660' is already revoked."}`
	for _, a := range []struct {
		status int
		body   string
		after  string
	}{
		{200, `{"status":"ok"}`, ""}, {200, `{"status":"OK"}`, ""}, {200, `{"status":"ok"}{}`, ""}, {200, `<html>`, ""}, {200, `{"status":5}`, ""}, {204, "", ""},
		{400, already, ""}, {400, strings.Replace(already, "4660", "4661", 1), ""}, {403, already, ""}, {400, strings.Replace(already, "400", "401", 1), ""},
		{401, `{"status":401,"message":"The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info."}`, ""},
		{503, "busy " + secret, "5"}, {429, secret[:50], "Wed, 21 Oct 2099 07:28:00 GMT"}, {500, "", "-5"}, {302, "", "99999999999999999999"}, {501, "{}", "1e9"}, {100, "", ""},
	} {
		f.Add(a.status, []byte(a.body), a.after, "id")
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, after, id string) {
		defer limited()()
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}}
		resp.Header.Set("Retry-After", after)
		resp.Header.Set("X-Request-Id", id)
		resp.Header.Set("Location", id)
		x := exchange{secret: secret, limit: maxConfirmation, read: readConfirmation}
		err := x.clean(x.receive(resp))
		if err == nil {
			var said map[string]any
			if status < 200 || status > 299 || json.Unmarshal(body, &said) != nil || !holds(said, "ok") {
				t.Errorf("%d with %q is a success", status, body)
			}
			return
		}
		for i := range len(secret) - minPart + 1 {
			if strings.Contains(err.Error(), secret[i:i+minPart]) {
				t.Fatalf("a part of the token is in %q", err)
			}
		}
		r, refused := asRefusal(err)
		if !refused {
			return
		}
		if r.retryAfter < 0 || r.retryAfter > 24*time.Hour {
			t.Errorf("to be tried again after %s", r.retryAfter)
		}
		var said errs.ErrorResponse
		_ = json.Unmarshal(body, &said)
		isAlready := status == 400 && said.Status == 400 && said.Message == "The request could not be completed: certificate with serial number '4660' is already revoked."
		if a := r.answer(fuzzedSerial); a.Status.Done() != isAlready || a.Status == revocation.Revoked {
			t.Errorf("%d with %q is %+v", status, body, a)
		}
	})
}

// holds tells whether an object has a value under the key status, in any case.
func holds(object map[string]any, value string) bool {
	for key, v := range object {
		if strings.EqualFold(key, "status") && v == value {
			return true
		}
	}
	return false
}

// FuzzProvisioners reads a page of provisioners. Each has a name and a type that
// can be shown.
func FuzzProvisioners(f *testing.F) {
	for _, page := range []string{
		`{"provisioners":[{"type":"JWK","name":"admin","key":{"use":"sig","kty":"EC","kid":"k","crv":"P-256","alg":"ES256","x":"AQ","y":"AQ"},"encryptedKey":"eyJ"}],"nextCursor":"x"}`,
		`{"provisioners":[{"type":"ACME","name":"acme"},{"type":"X5C","name":"x","roots":"eA=="},{"type":"none"},{"type":"OIDC","name":"o","claims":{"maxTLSCertDuration":"x"}}]}`,
		`{"provisioners":null}`, `{"provisioners":{}}`, `{"provisioners":[null]}`, `{"provisioners":[1]}`, `[]`, ``,
	} {
		f.Add([]byte(page))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer limited()()
		var page struct {
			Provisioners listed
			NextCursor   string
		}
		size, err := readJSON(bytes.NewReader(data), &page)
		if err != nil {
			return
		}
		if size != int64(len(data)) {
			t.Errorf("%d bytes are read of %d", size, len(data))
		}
		for _, p := range page.Provisioners {
			if len(p.GetName()) > maxName || p.GetType().String() == "" {
				t.Errorf("a provisioner of type %q with the name %q", p.GetType(), p.GetName())
			}
		}
	})
}

// FuzzCertificatesOfCA reads the intermediates that a CA lists, and its root.
func FuzzCertificatesOfCA(f *testing.F) {
	ca, err := minica.New()
	if err != nil {
		f.Fatal(err)
	}
	block, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})))
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range []string{`{"crts":[` + string(block) + `]}`, `{"ca":` + string(block) + `}`, `{"crts":[null,""]}`, `{"ca":null}`, `{"crts":["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]}`, `{}`} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer limited()()
		var list api.IntermediatesResponse
		if _, err := readJSON(bytes.NewReader(data), &list); err == nil && checkIntermediates(list.Certificates) == nil {
			for _, c := range list.Certificates {
				if _, err := x509.ParseCertificate(c.Raw); err != nil {
					t.Error(err)
				}
			}
		}
		var root api.RootResponse
		if _, err := readJSON(bytes.NewReader(data), &root); err == nil && root.RootPEM.Certificate != nil {
			_ = root.RootPEM.RawSubject
		}
	})
}

// FuzzDER reads a value in DER. What is read is the value, or no more than a byte
// longer.
func FuzzDER(f *testing.F) {
	for _, in := range []string{"\x30\x03\x02\x01\x05", "\x30\x81\x80", "\x30\x84\x04\x00\x00\x00", "\x30\x84\xff\xff\xff\xff", "\x30\x80\x00\x00", "<html>", "\x30\x03\x02\x01\x05more", ""} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer limited()()
		if size := derSize(data[:min(len(data), 6)]); size > 1<<20 && size <= maxCRL {
			return // for which room is made: once in a run, but here again and again
		}
		der, err := readDER(bytes.NewReader(data), maxCRL)
		if err == nil && (!bytes.HasPrefix(data, der) || int64(len(der)) != min(int64(len(data)), derSize(data[:min(len(data), 6)])+1)) {
			t.Errorf("of %x, %x is read", data, der)
		}
	})
}

// FuzzAddress reads the address of a CA, and a fingerprint. An address is the same
// when it is read again, and has no user, password or path.
func FuzzAddress(f *testing.F) {
	for _, in := range []string{"ca.example.com", "https://CA.example.com:443/", "http://ca", "mike@ca", "x@/", "[::1]:9000", "::1", "ca:", "https://ca/%zz", "https://", "ca:99999", "ca\x00", "https://ca:443:443", strings.Repeat("5A", 32), strings.Repeat("5a:", 31) + "5A"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		defer limited()()
		if u, err := ParseURL(in); err == nil {
			again, err := ParseURL(u.String())
			if err != nil || *again != *u || u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Hostname() == "" {
				t.Errorf("%q is %+v, and that %+v, %v", in, u, again, err)
			}
		}
		const password = "open sesame"
		if _, err := ParseURL("https://mike:" + url.QueryEscape(password) + "@" + in); err == nil || strings.Contains(err.Error(), "sesame") && !strings.Contains(in, "sesame") {
			t.Errorf("with a user, %q is an address, or the password is in the error: %v", in, err)
		}
		if sum, err := ParseFingerprint(in); err == nil {
			if again, err := ParseFingerprint(sum); err != nil || again != sum || len(sum) != 64 {
				t.Errorf("%q is %q, and that %q, %v", in, sum, again, err)
			}
		}
	})
}
