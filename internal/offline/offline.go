// Package offline is the CA's own authority, run in this process on the CA's
// database. It uses no network and no device, and of the CA's keys only the one
// that signs CRLs, if it signs any.
package offline

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/admin"
	adminnosql "github.com/smallstep/certificates/authority/admin/db/nosql"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/pemutil"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/input"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// How many revocations are in flight unless somebody wants another number. A
// database server gets as many as step-ca keeps connections to it open.
const (
	FilesConcurrency  = 512
	ServerConcurrency = 2
)

// Config is which CA, and how to open it.
type Config struct {
	File         string // its ca.json, as messages name it
	PasswordFile string // with the password of the CA's key; empty: it is asked for
	AllowUnknown bool   // revoke certificates too that the database does not know
	Known        bool   // the targets are what the database has of them
	LookOnly     bool   // no key is read and no CRL built
	ByHost       bool   // the host authorizes: no token comes, and no client certificate
	Force        bool   // revoke although the CA's database cannot hold the CRL
	ReasonCode   int    // of the revocations, which takes room in the CRL
	Timeout      time.Duration
}

// A CA is a step-ca that is not running.
type CA struct {
	config   Config
	settings *Settings
	client   *x509.Certificate   // which authorizes its own revocation, or nil
	chain    []*x509.Certificate // the issuing certificate and its intermediates

	password  []byte        // of the CA's key, if it is in a file
	signer    crypto.Signer // signs the CRL, or nil
	noSigner  error         // why there is no signer
	running   *config.Config
	database  *database.DB
	store     *store
	authority *authority.Authority
	contacted bool            // somebody has tried to open the database
	abandoned bool            // a step still runs in the background: see withTimeout
	sent      sync.WaitGroup  // revocations at a database server
	staleCRL  atomic.Bool     // the CRL may be out of date
	overflow  *tooLarge       // the next CRL, if the database has no room for it
	crlBy     context.Context // ends crlGrace after a signal
	closeBy   context.Context // ends closeGrace after a signal
}

// How long after a signal the CRL may take, and then the database to be closed.
// Both are less than the process has, which is to say what is missing.
const (
	crlGrace   = 3 * time.Second
	closeGrace = 4 * time.Second
)

// afterwards returns a context that ends a while after ctx.
func afterwards(ctx context.Context, while time.Duration) context.Context {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(while, cancel) })
	return later
}

// New makes sure that nothing but the database is left to open.
func New(ctx context.Context, c Config, s *Settings, client *tls.Certificate) (*CA, error) {
	ca := &CA{config: c, settings: s, crlBy: afterwards(ctx, crlGrace), closeBy: afterwards(ctx, closeGrace)}
	if client != nil {
		ca.client = client.Leaf
	}
	var err error
	if c.PasswordFile != "" {
		if ca.password, err = input.Password(ctx, c.PasswordFile, "--ca-password-file"); err != nil {
			return nil, err
		}
	}
	if ca.chain, err = pemutil.ReadCertificateBundle(s.CA.IntermediateCert); err != nil {
		return nil, problem.New("reading the CA's intermediate certificate: %w", err).Hint("check \"crt\" in ca.json")
	}
	if err := database.Check(s.CA.DB); err != nil {
		return nil, err
	}
	return ca, nil
}

func (ca *CA) inFiles() bool { return database.InFiles(ca.settings.CA.DB) }

// Concurrency returns how many revocations to have in flight: as many as are
// wanted, or the default of the type of database for 0.
func (ca *CA) Concurrency(wanted int) int {
	switch {
	case strings.EqualFold(ca.settings.CA.DB.Type, nosql.BBoltDriver):
		return 1 // it has one writer at a time, and does not survive an error with others waiting
	case wanted != 0:
		return wanted
	case ca.inFiles():
		return FilesConcurrency
	}
	return ServerConcurrency
}

// Audience returns the audience of tokens for this CA.
func (ca *CA) Audience() string { return ca.settings.CA.GetAudiences().Revoke[1] }

// Issuers returns the certificates that this CA issues with.
func (ca *CA) Issuers(context.Context) ([]*x509.Certificate, error) {
	return slices.Concat(ca.chain, ca.settings.Roots), nil
}

// Contacted tells whether the database was opened, or the attempt was made.
func (ca *CA) Contacted() bool { return ca.contacted }

// Provisioners returns the CA's provisioners. With remote management they are in
// the database, which is closed again before anybody is asked a question.
func (ca *CA) Provisioners(ctx context.Context) (provisioner.List, error) {
	if !ca.settings.CA.AuthorityConfig.EnableAdmin {
		return ca.settings.CA.AuthorityConfig.Provisioners, nil
	}
	ca.contacted = true
	var list provisioner.List
	err := ca.withTimeout(ctx, func() error {
		opened, err := ca.openDatabase()
		if err != nil {
			return err
		}
		list, err = managedProvisioners(ctx, opened)
		return errors.Join(err, opened.Close())
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (ca *CA) openDatabase() (*database.DB, error) {
	return database.Open(ca.settings.CA.DB, !ui.Debugging())
}

// managedProvisioners reads the provisioners of remote management. A database
// without any is not the CA's: step-ca would fill it.
func managedProvisioners(ctx context.Context, from *database.DB) (provisioner.List, error) {
	if entries, err := from.List([]byte("provisioners")); err != nil || len(entries) == 0 {
		return nil, problem.New("the CA's database holds no provisioners, although remote management is on").
			Hint("check \"db\" in ca.json: this looks like a new database, not like the CA's")
	}
	admins, err := adminnosql.New(from, admin.DefaultAuthorityID)
	if err != nil {
		return nil, problem.New("reading the provisioners: %w", err)
	}
	stored, err := admins.GetProvisioners(ctx)
	if err != nil {
		return nil, problem.New("reading the provisioners: %w", err)
	}
	var list provisioner.List
	for _, s := range stored {
		p, err := authority.ProvisionerToCertificates(s)
		if err != nil {
			return nil, problem.New("reading the provisioner %q: %w", s.GetName(), err)
		}
		list = append(list, p)
	}
	return list, nil
}

// withTimeout takes a step that needs the database. A database server must
// answer within the timeout of the configuration, and until a signal. Otherwise
// the step keeps running in the background and the CA is abandoned: its database
// must not be used or closed any more, nor may the caller read what the step
// sets. A database in files has all the time that it takes.
func (ca *CA) withTimeout(ctx context.Context, step func() error) error {
	if ca.inFiles() {
		return step()
	}
	return ca.await(ctx, time.After(ca.config.Timeout), step)
}

// finish takes one of the last steps as withTimeout does, but a database in files
// has time until ctx ends, too.
func (ca *CA) finish(ctx context.Context, step func() error) error {
	var timeout <-chan time.Time
	if !ca.inFiles() {
		timeout = time.After(ca.config.Timeout)
	}
	return ca.await(ctx, timeout, step)
}

// await takes a step until ctx ends or the timeout is over.
func (ca *CA) await(ctx context.Context, timeout <-chan time.Time, step func() error) error {
	done := make(chan error, 1)
	go func() { done <- step() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		ca.abandoned = true
		return problem.ErrInterrupted
	case <-timeout:
		ca.abandoned = true
		return problem.New("the CA's database server did not answer within %s", ca.config.Timeout).
			Hint("check the server; --timeout gives it longer")
	}
}

// Open asks for what signing a CRL takes, opens the database, starts the
// authority on it, and makes sure that the CA knows every target and that the
// database has room for the CRL.
func (ca *CA) Open(ctx context.Context, list *target.List) error {
	if err := ca.prepareCRL(ctx); err != nil {
		return err
	}
	ca.contacted = true
	if err := ca.withTimeout(ctx, func() error { return ca.start(ctx) }); err != nil {
		return err
	}
	if err := ca.checkKnown(ctx, list); err != nil {
		return err
	}
	return ca.checkRoom(ctx, list)
}

// start opens the database and starts the authority on it. Where the host
// authorizes, that is needed for a CRL alone.
func (ca *CA) start(ctx context.Context) (err error) {
	if ca.database, err = ca.openDatabase(); err != nil {
		return err
	}
	ca.store = &store{DB: &db.DB{DB: ca.database}, database: ca.database, number: -1}
	if ca.config.ByHost && ca.signer == nil {
		return nil
	}
	if ca.running, err = ca.reducedConfig(ctx); err != nil {
		return err
	}
	ca.authority, err = authority.New(ca.running,
		authority.WithDatabase(ca.store),
		authority.WithKeyManager(&softkms.SoftKMS{}),
		authority.WithX509SignerFunc(func() ([]*x509.Certificate, crypto.Signer, error) { return ca.chain, ca.signer, nil }),
		authority.WithX509RootCerts(ca.settings.Roots...),
		authority.WithX509IntermediateCerts(ca.chain...),
		authority.WithQuietInit(),
	)
	if err != nil {
		return problem.New("starting the CA's authority: %w", err)
	}
	return nil
}

// reducedConfig returns a copy of the CA's configuration without the parts that
// the authority would act on at its start and that a revocation does not need:
// it would fill the database, sign a CRL, and read the SSH keys and templates.
// Where the host authorizes, it has no provisioners either.
func (ca *CA) reducedConfig(ctx context.Context) (*config.Config, error) {
	cfg, auth := *ca.settings.CA, *ca.settings.CA.AuthorityConfig
	list := auth.Provisioners
	if ca.config.ByHost {
		list = nil
	} else if auth.EnableAdmin {
		var err error
		if list, err = managedProvisioners(ctx, ca.database); err != nil {
			return nil, err
		}
	}
	auth.Provisioners = nil
	for _, p := range list {
		if t := p.GetType(); t != provisioner.TypeJWK && t != provisioner.TypeX5C {
			p = uninitialized{Interface: p}
		}
		auth.Provisioners = append(auth.Provisioners, p)
	}
	auth.EnableAdmin = false
	cfg.AuthorityConfig, cfg.CRL, cfg.SSH, cfg.Templates = &auth, nil, nil, nil
	return &cfg, nil
}

// uninitialized is a provisioner that gives its name to the certificates that it
// has issued, but is not initialized: some types contact their identity provider
// for that, others need a key of the CA.
type uninitialized struct{ provisioner.Interface }

func (uninitialized) Init(provisioner.Config) error {
	return errors.New("not needed for a revocation")
}

// GetType hides the type: for SCEP the authority would look for a decryption key.
func (uninitialized) GetType() provisioner.Type { return 0 }

// checkKnown makes sure that the CA's database knows the targets, and takes over
// what it knows about them. A certificate that authorizes its own revocation must
// be in the database, whatever is allowed: anybody can make one with its number.
func (ca *CA) checkKnown(ctx context.Context, list *target.List) error {
	if ca.config.Known {
		return nil
	}
	var unknown []error
	for i := range list.All {
		if ctx.Err() != nil {
			return problem.ErrInterrupted
		}
		t := &list.All[i]
		var cert *x509.Certificate
		err := ca.withTimeout(ctx, func() (err error) {
			cert, err = ca.store.GetCertificate(t.Serial.String())
			return err
		})
		switch missing := nosql.IsErrNotFound(err); {
		case ca.abandoned:
			return err
		case err != nil && !missing:
			return problem.New("looking up the serial number %s in the CA's database: %w", t.Serial, err)
		case missing && !ca.config.AllowUnknown:
			if unknown = append(unknown, unknownTarget(t.Serial, list.Where(i))); len(unknown) == maxUnknown {
				return errors.Join(unknown...)
			}
		case ca.client != nil && (missing || !ca.client.Equal(cert)):
			return problem.New("the certificate in --cert is not the one that the CA has issued with the serial number %s, and cannot authorize its revocation", t.Serial).
				Hint("leave out --key to revoke it with a provisioner")
		case !missing:
			t.Cert = target.CertificateOf(cert)
		}
	}
	return errors.Join(unknown...)
}

// maxUnknown is how many unknown targets are told.
const maxUnknown = 10

// unknownTarget is the error for a target that the CA's database does not know.
func unknownTarget(serial target.Serial, where string) error {
	if where != "" {
		where += ": "
	}
	return problem.New("%sthe CA's database has no certificate with the serial number %s", where, serial).
		Hint("check the number; --allow-unknown accepts it anyway")
}

// Close builds the CRL, if there is one and it may be out of date, and shuts the
// authority and its database down. It must be called whatever has happened.
func (ca *CA) Close(ctx context.Context) error {
	if !ca.awaitSent(ctx) {
		ca.abandoned = true
	}
	var crlErr error
	switch {
	case !ca.abandoned:
		crlErr = ca.buildCRL(ctx)
	case ca.settings.CA.CRL.IsEnabled() && ca.staleCRL.Load():
		crlErr = ca.noCRL(errors.New("the CA's database server does not answer"))
	}
	return errors.Join(crlErr, ca.shutDown())
}

// shutDown shuts the authority and its database down, unless something still
// uses them in the background.
func (ca *CA) shutDown() error {
	if ca.abandoned {
		return ca.notClosed()
	}
	var shutdownErr, closeErr error
	if ca.authority != nil {
		if err := ca.authority.Shutdown(); err != nil {
			shutdownErr = problem.New("shutting the authority down: %w", err)
		}
		ca.authority = nil
	}
	if ca.database != nil {
		if closeErr = ca.finish(ca.closeBy, ca.database.Close); ca.abandoned {
			closeErr = ca.notClosed()
		}
		ca.database = nil
	}
	return errors.Join(shutdownErr, closeErr)
}

// notClosed returns the problem that the database is still open. A connection to
// a server ends with the process.
func (ca *CA) notClosed() error {
	if !ca.inFiles() {
		return nil
	}
	return problem.New("the CA's database was not closed").Hint("step-ca repairs it when it starts")
}

// awaitSent waits for revocations that went unanswered, so that a CRL that is
// built afterwards has them: for the timeout, but hardly after a signal. It
// tells whether all have ended.
func (ca *CA) awaitSent(ctx context.Context) bool {
	if ca.inFiles() {
		return true // Revoke has waited
	}
	done := make(chan struct{})
	go func() { ca.sent.Wait(); close(done) }()
	limit := ca.config.Timeout
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
