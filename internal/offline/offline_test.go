package offline

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/certificates/errs"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind         string
		wanted, want int
	}{
		{"bbolt", 0, 1}, {"BBolt", 64, 1},
		{"badger", 0, 512}, {"badgerV1", 0, 512}, {"badgerv2", 7, 7}, {"badgerv2", 1000, 1000},
		{"mysql", 0, 2}, {"postgresql", 0, 2}, {"PostgreSQL", 1, 1}, {"mysql", 64, 64},
	} {
		ca := &CA{settings: &Settings{CA: &config.Config{DB: &db.Config{Type: tt.kind, DataSource: "x"}}}}
		if got := ca.Concurrency(tt.wanted); got != tt.want {
			t.Errorf("%s, %d wanted: %d, want %d", tt.kind, tt.wanted, got, tt.want)
		}
	}
}

func TestAnswerTo(t *testing.T) {
	t.Parallel()
	serial, _ := target.ParseSerial("340282366920938463463374607431768211455")
	const files, server = true, false
	status := func(code int, text string) error { return &errs.Error{Status: code, Err: errors.New(text)} }
	already := status(http.StatusBadRequest, "certificate with serial number '340282366920938463463374607431768211455' is already revoked")
	// As Badger, PostgreSQL and the network word it.
	const token = "error storing used token used_ott/ABC: failed to set \x08\x00used_ott\x03\x00ABC: no space left on device"
	causes := map[string]string{
		token: "error storing used token used_ott/…: failed to set \x08\x00used_ott\x03\x00…: no space left on device",
		"authority.Revoke: failed to set revoked_x509_certs/340282366920938463463374607431768211455: full": "authority.Revoke: failed to set revoked_x509_certs/…: full",
		"write tcp 127.0.0.1:40412->127.0.0.1:5432: broken pipe":                                           "write tcp …->127.0.0.1:5432: broken pipe",
	}
	for _, tt := range []struct {
		err    error
		where  bool
		status revocation.Status
		next   revocation.Next
	}{
		{nil, files, revocation.Revoked, 0},
		{already, files, revocation.AlreadyRevoked, 0},
		{problem.Wrap(already, "wrapped"), server, revocation.AlreadyRevoked, 0},
		{errs.Wrap(http.StatusInternalServerError, db.ErrAlreadyExists, "wrapped"), server, revocation.AlreadyRevoked, 0},
		{status(http.StatusBadRequest, "certificate with serial number '34028236692093846346337460743176821145' is already revoked"), files, revocation.Failed, revocation.Others},
		{status(http.StatusBadRequest, "this session is already revoked"), files, revocation.Failed, revocation.Others},
		{status(http.StatusInternalServerError, token), files, revocation.Failed, revocation.Nothing},
		{status(http.StatusInternalServerError, "authority.Revoke: failed to set revoked_x509_certs/340282366920938463463374607431768211455: full"), server, revocation.Unknown, revocation.Again},
		{status(http.StatusInternalServerError, "write tcp 127.0.0.1:40412->127.0.0.1:5432: broken pipe"), server, revocation.Unknown, revocation.Again},
		{status(http.StatusBadRequest, "no"), files, revocation.Failed, revocation.Others},
		{status(http.StatusInternalServerError, "is already revoked"), files, revocation.Failed, revocation.Nothing},
		{status(http.StatusInternalServerError, "deadlock"), server, revocation.Unknown, revocation.Again},
		{status(http.StatusUnauthorized, "no"), files, revocation.Failed, revocation.FreshToken},
		{status(http.StatusUnauthorized, "no"), server, revocation.Failed, revocation.FreshToken},
		{status(http.StatusForbidden, "no"), server, revocation.Failed, revocation.Others},
		{status(http.StatusNotImplemented, "no"), server, revocation.Failed, revocation.Nothing},
		{status(http.StatusServiceUnavailable, "no"), server, revocation.Failed, revocation.Nothing},
		{errors.New("is already revoked"), server, revocation.Failed, revocation.Nothing},
		{context.Canceled, files, revocation.Failed, revocation.Nothing},
	} {
		got := answerTo(serial, tt.err, tt.where)
		want := revocation.Answer{Status: tt.status, Next: tt.next}
		if !tt.status.Done() {
			want.Err = tt.err
			want.Cause = cmp.Or(causes[tt.err.Error()], tt.err.Error())
		}
		if got != want {
			t.Errorf("%v, in files %t: %+v, want %+v", tt.err, tt.where, got, want)
		}
	}
}

// open opens a CA for one target, which must succeed.
func (f *fixture) open(t *testing.T, c Config, list *target.List) *CA {
	t.Helper()
	ca := f.prepare(t, c)
	if err := ca.Open(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	return ca
}

// prepare makes a CA whose one certificate authorizes revocations.
func (f *fixture) prepare(t *testing.T, c Config) *CA {
	t.Helper()
	return f.prepareFor(t.Context(), t, c, &tls.Certificate{Leaf: f.leaf})
}

// prepareFor makes a CA for a client certificate, or nil.
func (f *fixture) prepareFor(ctx context.Context, t *testing.T, c Config, client *tls.Certificate) *CA {
	t.Helper()
	settings, err := ReadSettings(f.config)
	if err != nil {
		t.Fatal(err)
	}
	c.File, c.Timeout = f.config, cmp.Or(c.Timeout, time.Minute)
	ca, err := New(ctx, c, settings, client)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// request asks for a revocation with the reason superseded.
func request(serial target.Serial) revocation.Request {
	return revocation.Request{Serial: serial, Reason: revocation.Reason{Code: 4, Name: "superseded", Text: "moved"}}
}

// TestRevoke revokes, looks for it, and looks again in a later run.
func TestRevoke(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ca := f.prepare(t, Config{})
	if ca.Contacted() {
		t.Error("contacted before it is opened")
	}
	if list, err := ca.Provisioners(t.Context()); err != nil || len(list) != 2 || ca.Contacted() {
		t.Errorf("provisioners %v, %v", list, err)
	}
	list := f.list()
	if err := ca.Open(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	serial := list.All[0].Serial
	if cert := list.All[0].Cert; cert == nil || cert.Subject != "CN=mike" || !ca.Contacted() {
		t.Errorf("certificate %+v", cert)
	}
	for _, want := range []revocation.Status{revocation.Revoked, revocation.AlreadyRevoked} {
		if a := ca.Revoke(t.Context(), request(serial)); a != (revocation.Answer{Status: want}) {
			t.Fatalf("%+v, want %s", a, want)
		}
	}
	found, err := ca.Evidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	record, err := found.Find(t.Context(), serial)
	if err != nil || record == nil || *record.Code != 4 || record.Text != "moved" || !record.Listed || time.Since(record.Time) > time.Hour {
		t.Errorf("record %+v, %v", record, err)
	}
	if record, err := found.Find(t.Context(), target.Serial{19: 1}); record != nil || err != nil {
		t.Errorf("record of another %+v, %v", record, err)
	}
	if why := found.WhyMissing().Error(); !strings.HasPrefix(why, "not in the CRL in the CA's database, number 0 of 20") {
		t.Errorf("why missing: %s", why)
	}
	if err := errors.Join(ca.Close(t.Context()), ca.Close(t.Context())); err != nil {
		t.Error(err)
	}
	// What ca.json says is still there.
	if cfg := ca.settings.CA; !cfg.CRL.IsEnabled() || cfg.AuthorityConfig.Provisioners[1].GetType() != provisioner.TypeOIDC {
		t.Errorf("configuration %+v", cfg)
	}

	ca = f.open(t, Config{LookOnly: true}, list)
	if found, err = ca.Evidence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if record, err := found.Find(t.Context(), serial); err != nil || record == nil || !record.Listed {
		t.Errorf("looked again: %+v, %v", record, err)
	}
	if err := ca.Close(t.Context()); err != nil || ca.signer != nil {
		t.Errorf("%v, signer %v", err, ca.signer)
	}
}

// TestUnknown opens the CA for a number that it has not issued.
func TestUnknown(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, allowed := range []bool{false, true} {
		ca := f.prepareFor(t.Context(), t, Config{AllowUnknown: allowed}, nil)
		list := f.list()
		list.Add(target.Serial{19: 7}, nil)
		err := ca.Open(t.Context(), list)
		if allowed != (err == nil) || err != nil && err.Error() != "the CA's database has no certificate with the serial number 7" {
			t.Errorf("allowed %t: %v", allowed, err)
		}
		if err := ca.Close(t.Context()); err != nil || !ca.Contacted() {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestClient has certificates authorize their own revocation. Nothing allows one
// that the CA has not issued.
func TestClient(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, other := issue(t, "mike", nil, nil)
	forged := *other
	forged.SerialNumber = f.leaf.SerialNumber
	const notIssued = "the certificate in --cert is not the one that the CA has issued with the serial number "
	for _, tt := range []struct {
		cert    *x509.Certificate
		allowed bool
		want    string
	}{
		{f.leaf, false, ""}, {f.leaf, true, ""},
		{&forged, false, notIssued}, {&forged, true, notIssued},
		{other, false, "the CA's database has no certificate with the serial number "}, {other, true, notIssued},
	} {
		ca := f.prepareFor(t.Context(), t, Config{AllowUnknown: tt.allowed}, &tls.Certificate{Leaf: tt.cert})
		serial, _ := target.SerialOf(tt.cert.SerialNumber)
		list := &target.List{}
		list.Add(serial, &target.Certificate{Subject: "CN=forged", NotAfter: time.Unix(1, 0)})
		if err := ca.Open(t.Context(), list); !begins(err, tt.want) {
			t.Errorf("%s, allowed %t: %v, want %s", tt.cert.Subject, tt.allowed, err, tt.want)
		}
		if known := list.All[0].Cert; tt.want == "" && (known.Subject != "CN=mike" || !known.NotAfter.Equal(f.leaf.NotAfter)) {
			t.Errorf("known of the certificate: %+v", known)
		}
		if err := ca.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestNoCRL revokes where there can be no new CRL, and says so once.
func TestNoCRL(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tt := range []struct{ key, want string }{
		{missing, "the CRL was not rebuilt: error reading \"" + missing + "\": "},
		{"", "the CRL was not rebuilt: KEY is not the key of "},
		{"awskms:key-id=x", "the CRL was not rebuilt: the CA's key is in a key management system (awskms), which is not used offline"},
	} {
		for _, verify := range []bool{false, true} {
			f := newFixture(t)
			key := cmp.Or(tt.key, f.otherKey)
			f.change(t, func(cfg map[string]any) { cfg["key"] = key })
			list := f.list()
			ca := f.open(t, Config{}, list)
			if a := ca.Revoke(t.Context(), request(list.All[0].Serial)); a.Status != revocation.Revoked {
				t.Fatalf("%+v", a)
			}
			var err error
			if verify {
				found, evidenceErr := ca.Evidence(t.Context())
				if evidenceErr != nil {
					t.Fatal(evidenceErr)
				}
				err = found.WhyMissing()
				if closeErr := ca.Close(t.Context()); closeErr != nil {
					t.Errorf("said twice: %v", closeErr)
				}
			} else {
				err = ca.Close(t.Context())
			}
			want := strings.Replace(tt.want, "KEY", key, 1)
			if err == nil || !strings.HasPrefix(err.Error(), want) || problem.Code(err) != problem.Incomplete || strings.Join(problem.Hints(err), "|") != rebuildHint {
				t.Errorf("verify %t: %v, code %d, hints %q, want %s", verify, err, problem.Code(err), problem.Hints(err), want)
			}
		}
	}
}

// TestNoCRLs looks at a CA without CRLs.
func TestNoCRLs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.change(t, func(cfg map[string]any) { delete(cfg, "crl"); cfg["key"] = "missing" })
	list := f.list()
	ca := f.open(t, Config{}, list)
	defer ca.Close(t.Context())
	found, err := ca.Evidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if why := found.WhyMissing(); why.Error() != "the CA has no CRL" || strings.Join(problem.Hints(why), "|") != revocation.NoCRLHint {
		t.Errorf("%v", why)
	}
	if record, err := found.Find(t.Context(), list.All[0].Serial); record != nil || err != nil {
		t.Errorf("%+v, %v", record, err)
	}
}

// TestSilentServer waits for a database server that accepts connections and does
// no more.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f := newFixture(t)
	f.change(t, func(cfg map[string]any) {
		delete(cfg, "crl")
		cfg["db"] = map[string]any{"type": "postgresql", "dataSource": "postgresql://ca@" + listener.Addr().String() + "/ca"}
	})
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		want string
	}{
		{t.Context(), "the CA's database server did not answer within 1ms"},
		{interrupted, "interrupted"},
	} {
		ca := f.prepare(t, Config{Timeout: time.Millisecond})
		if tt.ctx == interrupted {
			ca.config.Timeout = time.Minute
		}
		if err := ca.Open(tt.ctx, f.list()); err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
		if err := ca.Close(tt.ctx); err != nil || !ca.Contacted() || !ca.abandoned {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestIssuers has the CA's own certificates.
func TestIssuers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ca := f.prepare(t, Config{})
	issuers, err := ca.Issuers(t.Context())
	if err != nil || len(issuers) != 2 || !signs(issuers[0], f.leaf) || !signs(issuers[1], issuers[0]) {
		t.Errorf("%d issuers, %v", len(issuers), err)
	}
	if got := ca.Audience(); got != "https://ca.example.com/1.0/revoke" {
		t.Errorf("audience %s", got)
	}
}

func signs(issuer, cert *x509.Certificate) bool { return cert.CheckSignatureFrom(issuer) == nil }
