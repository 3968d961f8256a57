package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smallstep/certificates/api"
	authoritypkg "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/admin"
	adminnosql "github.com/smallstep/certificates/authority/admin/db/nosql"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/certificates/errs"
	"github.com/smallstep/nosql"
	kmsapi "go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/pemutil"
)

// offline is the CA's own authority, run in this process on the CA's database.
// It uses no network and no device, and of the CA's keys only the one that
// signs CRLs, if it signs any.
type offline struct {
	options *options
	client  *x509.Certificate // authorizes itself, or nil
	config  *config.Config
	crl     *config.CRLConfig   // config's own is taken out: one CRL is built at the end
	chain   []*x509.Certificate // the issuing certificate and its intermediates

	password  []byte        // of the CA's key, if it is in a file
	signer    crypto.Signer // signs the CRL, or nil
	noSigner  error         // why there is none
	database  nosql.DB
	authority *authoritypkg.Authority
	touched   bool // the database was opened
	hung      bool // it did not answer in time: what was asked of it goes on
	sent      sync.WaitGroup
	revoked   atomic.Bool // something was, now or before, that the CRL may lack
}

// readCAConfig reads the CA's configuration and its root certificates.
func readCAConfig(o *options) error {
	saySelected("CA", "offline, "+o.caConfig)
	cfg, err := config.LoadConfiguration(o.caConfig)
	if err != nil {
		return usagef("reading the CA's configuration: %w", err).hint("--ca-config names the CA's ca.json, --context the context that it is in")
	}
	if err := checkConfig(cfg); err != nil {
		return fmt.Errorf("%s: %w", o.caConfig, err)
	}
	for _, file := range cfg.Root {
		roots, err := pemutil.ReadCertificateBundle(file)
		if err != nil {
			return usagef("reading the CA's root certificate: %w", err).hint("check \"root\" in ca.json")
		}
		o.roots = append(o.roots, roots...)
	}
	o.ca = cfg
	return nil
}

// newOffline makes sure that nothing but the database is left to open. All its
// errors are usage errors.
func newOffline(ctx context.Context, o *options, client *tls.Certificate) (*offline, error) {
	f := &offline{options: o, config: o.ca, crl: o.ca.CRL}
	if client != nil {
		f.client = client.Leaf
	}
	var err error
	if o.caPasswordFile != "" {
		if f.password, err = readPassword(ctx, o.caPasswordFile); err != nil {
			return nil, err
		}
	}
	if f.chain, err = pemutil.ReadCertificateBundle(o.ca.IntermediateCert); err != nil {
		return nil, usagef("reading the CA's intermediate certificate: %w", err).hint("check \"crt\" in ca.json")
	}
	switch {
	case strings.EqualFold(o.ca.DB.Type, nosql.BBoltDriver):
		o.concurrency = 1 // it writes one thing at a time, and does not survive an error meanwhile
	case databaseFiles(o.ca.DB) == nil && !o.concurrencyGiven:
		o.concurrency = min(o.concurrency, serverConcurrency)
	case !o.concurrencyGiven && !o.dryRun:
		o.concurrency = filesConcurrency
	}
	return f, checkDatabaseFiles(o.ca.DB)
}

// checkConfig finds what makes a CA unfit for revoking without it.
func checkConfig(cfg *config.Config) error {
	ra := cfg.AuthorityConfig.Options
	switch {
	case !ra.Is(casapi.SoftCAS):
		return usagef("this is a registration authority (%s), and its certificates are revoked by the CA behind it", casapi.Type(ra.Type)).
			hint("revoke online, without --offline")
	case strings.EqualFold(cfg.AuthorityConfig.DeploymentType, "linked"):
		return usagef("this is a linked CA, which keeps its revocations elsewhere").hint("revoke online, without --offline")
	}
	switch err := cfg.Validate(); {
	case err != nil:
		return usagef("the configuration is invalid: %w", err)
	case cfg.DB == nil:
		return usagef("the CA has no database (\"db\"), and step-ca cannot revoke without one")
	}
	return nil
}

// Audience is the audience of tokens for this CA.
func (f *offline) Audience() string { return f.config.GetAudiences().Revoke[1] }

// Issuers are the certificates that this CA issues with.
func (f *offline) Issuers(context.Context) ([]*x509.Certificate, error) {
	return append(append([]*x509.Certificate{}, f.chain...), f.options.roots...), nil
}

// Provisioners lists the CA's provisioners. With remote management they are in
// the database, which is closed again before the next question is asked.
func (f *offline) Provisioners(ctx context.Context) (list provisioner.List, err error) {
	if !f.config.AuthorityConfig.EnableAdmin {
		return f.config.AuthorityConfig.Provisioners, nil
	}
	f.touched = true
	err = f.patiently(ctx, func() (err error) {
		database, err := openDatabase(f.config.DB)
		if err != nil {
			return err
		}
		defer func() { err = cmp.Or(err, closeDatabase(database)) }()
		list, err = managedProvisioners(ctx, database)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// patiently takes a step that needs the database. A database server gets as
// long as --timeout says to answer; if that is not enough, the step is left to
// itself, and nothing else touches what it touches.
func (f *offline) patiently(ctx context.Context, step func() error) error {
	if databaseFiles(f.config.DB) != nil {
		return step()
	}
	done := make(chan error, 1)
	go func() { done <- step() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		f.hung = true
		return errInterrupted
	case <-time.After(f.options.timeout):
		f.hung = true
		return failf("the CA's database server did not answer within %s", f.options.timeout).
			hint("check the server; --timeout gives it longer")
	}
}

// managedProvisioners reads the provisioners of remote management. A database
// without any is not the CA's: step-ca would fill it.
func managedProvisioners(ctx context.Context, database nosql.DB) (provisioner.List, error) {
	if entries, err := database.List([]byte("provisioners")); err != nil || len(entries) == 0 {
		return nil, failf("the CA's database holds no provisioners, although remote management is on").
			hint("check \"db\" in ca.json: this looks like a new database, not like the CA's")
	}
	admins, err := adminnosql.New(database, admin.DefaultAuthorityID)
	if err != nil {
		return nil, failf("reading the provisioners: %w", err)
	}
	stored, err := admins.GetProvisioners(ctx)
	if err != nil {
		return nil, failf("reading the provisioners: %w", err)
	}
	var list provisioner.List
	for _, s := range stored {
		p, err := authoritypkg.ProvisionerToCertificates(s)
		if err != nil {
			return nil, failf("reading the provisioner %q: %w", s.GetName(), err)
		}
		list = append(list, p)
	}
	return list, nil
}

// prepareCRL gets the key that signs CRLs, if there are any to sign. Where the
// key cannot be had the run goes on without it; only a wrong password ends it.
func (f *offline) prepareCRL(ctx context.Context) error {
	if !f.crl.IsEnabled() || f.options.looks() {
		return nil
	}
	kmsType, err := kmsapi.TypeOf(f.config.IntermediateKey)
	if f.config.KMS != nil && (err != nil || kmsType == kmsapi.DefaultKMS) {
		kmsType, _ = f.config.KMS.GetType()
	}
	if kmsType != kmsapi.DefaultKMS && kmsType != kmsapi.SoftKMS {
		f.noSigner = fmt.Errorf("the CA's key is in a key management system (%s), which is not used offline", kmsType)
	} else if f.signer, f.noSigner = f.readCAKey(ctx); f.noSigner != nil {
		var p *problem
		if errors.As(f.noSigner, &p) {
			return f.noSigner
		}
	} else if !isKeyPair(f.signer, f.chain[0]) {
		f.noSigner = fmt.Errorf("%s is not the key of %s", f.config.IntermediateKey, f.config.IntermediateCert)
	}
	if f.noSigner != nil {
		sayMarked(warn, "no new CRL will be made: %v", f.noSigner)
	}
	return nil
}

// readCAKey reads the CA's key from its file. An error is a problem only where
// the run must not go on.
func (f *offline) readCAKey(ctx context.Context) (crypto.Signer, error) {
	given := f.password
	if given == nil && f.config.Password != "" {
		given = []byte(f.config.Password)
	}
	var notAsked error
	encrypted := false
	req := &kmsapi.CreateSignerRequest{
		SigningKey: f.config.IntermediateKey,
		PasswordPrompter: func(string) (password []byte, err error) {
			if encrypted = true; given != nil {
				return given, nil
			}
			password, notAsked = askPassword(ctx, "--ca-password-file", "Please enter the password to decrypt the CA's key (empty: no new CRL)")
			if notAsked == nil && len(password) == 0 {
				notAsked = errors.New("no password was given")
			}
			return password, notAsked
		},
	}
	for try := 1; ; try++ {
		signer, err := (&softkms.SoftKMS{}).CreateSigner(req)
		switch {
		case errors.Is(notAsked, errInterrupted):
			return nil, errInterrupted
		case notAsked != nil:
			return nil, errors.New(notAsked.Error()) // what is missing is the CRL alone
		case !encrypted || !isWrongPassword(err):
			return signer, err
		case f.options.caPasswordFile != "":
			return nil, usagef("the password in %s does not fit the CA's key %s", f.options.caPasswordFile, f.config.IntermediateKey)
		case given != nil:
			return nil, fmt.Errorf("the password in %s does not fit the CA's key", f.options.caConfig)
		case try == maxTries:
			return nil, usagef("the password does not fit the CA's key %s", f.config.IntermediateKey)
		}
		sayMarked(warn, "the password is wrong")
	}
}

// Open asks for what signing a CRL takes, opens the database, starts the
// authority on it, and makes sure that the CA knows every target.
func (f *offline) Open(ctx context.Context, list []target) error {
	if err := f.prepareCRL(ctx); err != nil {
		return err
	}
	f.touched = true
	if err := f.patiently(ctx, func() error { return f.start(ctx) }); err != nil {
		return err
	}
	return f.checkKnown(ctx, list)
}

// start opens the database and starts the authority on it.
func (f *offline) start(ctx context.Context) (err error) {
	if f.database, err = openDatabase(f.config.DB); err != nil {
		return err
	}
	auth := f.config.AuthorityConfig
	if auth.EnableAdmin {
		if auth.Provisioners, err = managedProvisioners(ctx, f.database); err != nil {
			return err
		}
	}
	for i, p := range auth.Provisioners {
		if t := p.GetType(); t != provisioner.TypeJWK && t != provisioner.TypeX5C {
			auth.Provisioners[i] = dormant{p}
		}
	}
	// What the authority would do at its start, and a revocation does not need:
	// fill the database, sign a CRL, read the SSH keys and the templates.
	auth.EnableAdmin, f.config.CRL, f.config.SSH, f.config.Templates = false, nil, nil, nil
	f.authority, err = authoritypkg.New(f.config,
		authoritypkg.WithDatabase(&db.DB{DB: f.database}),
		authoritypkg.WithKeyManager(&softkms.SoftKMS{}),
		authoritypkg.WithX509SignerFunc(func() ([]*x509.Certificate, crypto.Signer, error) { return f.chain, f.signer, nil }),
		authoritypkg.WithX509RootCerts(f.options.roots...),
		authoritypkg.WithX509IntermediateCerts(f.chain...),
		authoritypkg.WithQuietInit(),
	)
	if err != nil {
		return failf("starting the CA's authority: %w", err)
	}
	return nil
}

// checkKnown makes sure that the CA's database knows the targets, and completes
// them with what it knows.
func (f *offline) checkKnown(ctx context.Context, list []target) error {
	for i := range list {
		t := &list[i]
		if ctx.Err() != nil {
			return errInterrupted
		}
		var cert *x509.Certificate
		err := f.patiently(ctx, func() (err error) {
			cert, err = f.authority.GetDatabase().GetCertificate(t.serial.String())
			return err
		})
		switch {
		case f.hung:
			return err
		case err == nil && t.cert == nil:
			t.cert = certificateOf(cert, "")
			t.cert.der = nil
		case nosql.IsErrNotFound(err) && !f.options.allowUnknown:
			return failf("the CA's database knows no certificate with the serial number %s", t.serial).
				hint("check the number; --allow-unknown accepts it all the same")
		case err != nil && !nosql.IsErrNotFound(err):
			return failf("looking up the serial number %s in the CA's database: %w", t.serial, err)
		}
	}
	return nil
}

// Revoke does not wait longer for a database server than --timeout says, and ctx
// lasts. Files answer at once, and are about to be closed.
func (f *offline) Revoke(ctx context.Context, req *api.RevokeRequest) error {
	if databaseFiles(f.config.DB) != nil {
		return f.note(f.record(context.WithoutCancel(ctx), req))
	}
	ctx, cancel := context.WithTimeout(ctx, f.options.timeout)
	defer cancel()
	done := make(chan error, 1)
	f.sent.Go(func() { done <- f.record(context.WithoutCancel(ctx), req) })
	select {
	case err := <-done:
		return f.note(err)
	case <-ctx.Done():
		f.revoked.Store(true) // perhaps
		return noAnswer{errors.New("no answer of the CA's database")}
	}
}

// note notes what the CRL may lack.
func (f *offline) note(err error) error {
	if err == nil || errors.Is(err, errAlreadyRevoked) {
		f.revoked.Store(true)
	}
	return err
}

// record does what step-ca does for a request (api/revoke.go, Revoke).
func (f *offline) record(ctx context.Context, req *api.RevokeRequest) error {
	ctx = provisioner.NewContextWithMethod(ctx, provisioner.RevokeMethod)
	opts := &authoritypkg.RevokeOptions{
		Serial: req.Serial, Reason: req.Reason, ReasonCode: req.ReasonCode, PassiveOnly: req.Passive,
		OTT: req.OTT, MTLS: req.OTT == "", Crt: f.client,
	}
	if !opts.MTLS {
		opts.Crt = nil
		if _, err := f.authority.Authorize(ctx, req.OTT); err != nil {
			return f.explain(err)
		}
	}
	return f.explain(f.authority.Revoke(ctx, opts))
}

// explain turns an error of the authority into what it means.
func (f *offline) explain(err error) error {
	var api *errs.Error
	switch {
	case !errors.As(err, &api):
	case api.Status == http.StatusBadRequest && strings.Contains(err.Error(), "is already revoked"):
		return errAlreadyRevoked
	case api.Status == http.StatusInternalServerError && databaseFiles(f.config.DB) == nil:
		return noAnswer{err} // of a database server: under load some errors are transient
	}
	return err
}

// Evidence is the CA's database, and the CRL in it, which is built before.
func (f *offline) Evidence(ctx context.Context) (evidence, error) {
	list, err := f.storedCRL(ctx)
	if f.hung {
		return nil, err
	}
	return &databaseEvidence{f, list, err}, nil
}

// storedCRL reads the CRL in the CA's database.
func (f *offline) storedCRL(ctx context.Context) (*signedList, error) {
	if !f.crl.IsEnabled() {
		return nil, failf("the CA has no CRL").hint(noCRLHint)
	}
	if err := f.buildCRL(); err != nil {
		return nil, err
	}
	store, ok := f.authority.GetDatabase().(db.CertificateRevocationListDB)
	if !ok {
		return nil, errors.New("the CA's database cannot hold a CRL")
	}
	var stored *db.CertificateRevocationListInfo
	err := f.patiently(ctx, func() (err error) {
		stored, err = store.GetCRL()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the CRL in the CA's database: %w", err)
	}
	issuers, _ := f.Issuers(ctx)
	return readCRL(stored.DER, issuers)
}

// databaseEvidence is the record of each revocation in the CA's database, and
// the CRL there.
type databaseEvidence struct {
	ca     *offline
	list   *signedList // nil if there is none
	noList error       // why
}

func (d *databaseEvidence) Lookup(ctx context.Context, serial string) (*record, error) {
	var value []byte
	err := d.ca.patiently(ctx, func() (err error) {
		value, err = d.ca.database.Get([]byte("revoked_x509_certs"), []byte(serial))
		return err
	})
	switch {
	case nosql.IsErrNotFound(err):
		return nil, nil
	case d.ca.hung:
		return nil, err
	}
	var info db.RevokedCertificateInfo
	if err == nil {
		err = json.Unmarshal(value, &info)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of the serial number %s: %w", serial, err)
	}
	r := &record{code: info.ReasonCode, reason: info.Reason, time: info.RevokedAt}
	if d.list != nil {
		_, r.listed = d.list.entries[serial]
	}
	return r, nil
}

func (d *databaseEvidence) Missing() error {
	if d.noList != nil {
		return d.noList
	}
	return failf("the CRL in the CA's database, number %v of %s, does not have it", d.list.list.Number, stamp(d.list.list.ThisUpdate)).
		hint("step-ca rebuilds the CRL when it starts")
}

// Touched tells whether the database was opened, or tried to be.
func (f *offline) Touched() bool { return f.touched }

// Close builds the CRL, if there is one and something has changed, and shuts
// the authority and its database down. It must be called whatever has happened.
func (f *offline) Close(ctx context.Context) error {
	if !f.settled(ctx) {
		f.hung = true
	}
	if f.hung {
		if f.crl.IsEnabled() && f.revoked.Load() {
			return noCRL(errors.New("the CA's database server does not answer"))
		}
		return nil
	}
	var err error
	if f.authority != nil {
		err = f.buildCRL()
		if f.hung {
			return err
		}
		if shutdown := f.authority.Shutdown(); shutdown != nil {
			err = cmp.Or(err, error(failf("shutting the authority down: %w", shutdown)))
		}
		f.authority = nil
	}
	if f.database != nil {
		err = cmp.Or(err, closeDatabase(f.database))
		f.database = nil
	}
	return err
}

// settled waits for revocations that went unanswered, so that a CRL that is
// built afterwards has them: for --timeout, but hardly after a signal.
func (f *offline) settled(ctx context.Context) bool {
	if databaseFiles(f.config.DB) != nil {
		return true // files answer at once
	}
	done := make(chan struct{})
	go func() { f.sent.Wait(); close(done) }()
	limit := f.options.timeout
	if ctx.Err() != nil {
		limit = time.Millisecond
	}
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// buildCRL builds and stores one CRL with everything that is revoked.
func (f *offline) buildCRL() error {
	if !f.crl.IsEnabled() || !f.revoked.Swap(false) {
		return nil
	}
	err := f.noSigner
	if err == nil {
		f.config.CRL = f.crl
		err = f.patiently(context.Background(), f.authority.GenerateCertificateRevocationList)
	}
	if err != nil {
		return noCRL(err)
	}
	say("The CRL was rebuilt.")
	return nil
}

// noCRL is the problem that a CRL was to be rebuilt and could not be.
func noCRL(err error) *problem {
	return (&problem{error: fmt.Errorf("the CRL was not rebuilt: %w", err), code: exitIncomplete}).
		hint("step-ca rebuilds the CRL when it starts")
}

// dormant is a provisioner that is there, so that what it issued keeps its
// name in the database, but is not initialized: some types contact their
// identity provider for that, others need a key of the CA.
type dormant struct{ provisioner.Interface }

func (dormant) Init(provisioner.Config) error { return errors.New("not needed for a revocation") }

// GetType hides the type: for SCEP the authority would look for a decryption key.
func (dormant) GetType() provisioner.Type { return 0 }
