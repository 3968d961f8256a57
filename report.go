package main

// What the program says to a person, and how.
//
// What is meant for a person goes to standard error, in step's own look.
// Standard output is left to what was asked for: help, version, the table of a
// dry run, and JSON.
//
// A line is one line: whatever comes from certificates, files, flags or the CA
// is escaped before it is shown, so that it can neither start a new line nor
// move the cursor. Colour is for terminals that want it, and only for marks.
//
// An error is "error: " and what went wrong, in lower case without a full
// stop; then, where there is one, "hint: " and what to do about it. Nothing is
// claimed beyond what is known: revoked means that the CA has confirmed it.

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"golang.org/x/term"
)

// Exit codes, as DESIGN.md and the README list them.
const (
	exitOK          = 0
	exitFailed      = 1   // a target is not known to be revoked
	exitUsage       = 2   // found before the CA was contacted or opened
	exitIncomplete  = 3   // all are revoked, something beyond that is missing
	exitInterrupted = 130 // SIGINT or SIGTERM
)

// A problem is an error with the exit code it leads to and hints for a person.
type problem struct {
	error
	code  int
	hints []string
}

func (p *problem) Unwrap() error { return p.error }

// hint adds one line on what to do about the problem.
func (p *problem) hint(format string, args ...any) *problem {
	p.hints = append(p.hints, fmt.Sprintf(format, args...))
	return p
}

// usagef is a problem found before the CA was contacted or its database opened.
func usagef(format string, args ...any) *problem {
	return &problem{error: fmt.Errorf(format, args...), code: exitUsage}
}

// failf is a problem met with the CA or its database.
func failf(format string, args ...any) *problem {
	return &problem{error: fmt.Errorf(format, args...), code: exitFailed}
}

// errInterrupted ends a run that a signal or Ctrl-C at a prompt has stopped.
var errInterrupted = &problem{error: errors.New("interrupted"), code: exitInterrupted}

// exitCode is the exit code that err stands for.
func exitCode(err error) int {
	var p *problem
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &p):
		return p.code
	}
	return exitFailed
}

// A mark opens a line in the way step does.
type mark struct {
	sign  string
	color string // an SGR parameter
}

var (
	good = mark{"✔", "32"}
	warn = mark{"⚠", "33"}
)

// debugging is set by STEPDEBUG=1, as for step.
var debugging = os.Getenv("STEPDEBUG") == "1"

// colored tells whether marks on standard error may be coloured.
var colored = wantsColor(os.Stderr)

func wantsColor(f *os.File) bool { return !plain && term.IsTerminal(int(f.Fd())) }

// plain tells whether there shall be no escape sequences, at a terminal neither.
var plain = wantsPlain()

func wantsPlain() bool {
	_, noColor := os.LookupEnv("NO_COLOR")
	return noColor || os.Getenv("TERM") == "dumb"
}

func (m mark) String() string {
	if !colored {
		return m.sign
	}
	return "\x1b[" + m.color + "m" + m.sign + "\x1b[0m"
}

// say prints one line.
func say(format string, args ...any) {
	fmt.Fprintln(os.Stderr, printable(fmt.Sprintf(format, args...)))
}

// sayMarked prints one line behind a mark.
func sayMarked(m mark, format string, args ...any) {
	fmt.Fprintln(os.Stderr, m.String(), printable(fmt.Sprintf(format, args...)))
}

// saySelected prints what was chosen, by the user or because nothing else fits.
func saySelected(name, value string) { sayMarked(good, "%s: %s", name, value) }

// sayProblem prints an error and its hints.
func sayProblem(err error) {
	say("error: %v", err)
	var p *problem
	if errors.As(err, &p) {
		for _, hint := range p.hints {
			say("hint: %s", hint)
		}
	}
}

// sayDebug prints detail that only STEPDEBUG=1 asks for.
func sayDebug(format string, args ...any) {
	if debugging {
		say("debug: "+format, args...)
	}
}

// debugLog is a log for libraries, which know nothing of the rules here.
type debugLog struct{}

func (debugLog) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		sayDebug("%s", strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}

// printable escapes what could do anything but appear: control characters,
// line breaks, direction marks and other invisible characters, and bytes that
// are not UTF-8.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// printableJSON escapes in JSON what printable does, in JSON's own way: the
// data stay what they are.
func printableJSON(line []byte) string {
	var b strings.Builder
	for _, r := range string(line) {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// clip shortens s to at most n runes.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// status is what became of one certificate. DESIGN.md lists the words.
type status string

const (
	statusRevoked        status = "revoked"
	statusAlreadyRevoked status = "already-revoked"
	statusFailed         status = "failed"
	statusUnknown        status = "unknown"
	statusNotAttempted   status = "not-attempted"
	statusPlanned        status = "planned"
)

// An outcome is what is known about one certificate at the end.
type outcome struct {
	target     *target
	status     status
	err        error // why, unless it is revoked now or was before
	attempts   int
	time       time.Time
	requestID  string  // of the last attempt
	unanswered bool    // an attempt was sent and got no definite answer
	crlStale   bool    // an attempt failed in a way that can leave the CRL behind
	verified   *bool   // whether it was found on record; nil if nobody looked
	record     *record // what was found
}

// done tells whether the certificate is known to be revoked.
func (o *outcome) done() bool {
	return o.status == statusRevoked || o.status == statusAlreadyRevoked
}

// A report says what becomes of the targets, to a person and, with --format
// json, to a program.
type report struct {
	options      *options
	authorizedBy string
	unwritten    error // why standard output lacks something
}

// arrived takes one outcome as it happens. What --verify may still change is
// not written before it has.
func (r *report) arrived(o *outcome) {
	sayOutcome(o)
	if !r.options.verify {
		r.write(o)
	}
}

// conclude writes what is left to write and turns what has happened into the
// error that the run ends with.
func (r *report) conclude(ctx context.Context, targets []*target, outcomes []*outcome, err error) error {
	if outcomes == nil && exitCode(err) != exitUsage {
		for _, t := range targets {
			r.write(&outcome{target: t, status: statusNotAttempted, err: err, time: time.Now().UTC()})
		}
	}
	if r.options.verify {
		for _, o := range outcomes {
			r.sayVerified(o)
			r.write(o)
		}
	}
	if r.options.dryRun && !r.options.json && outcomes != nil {
		r.printPlan(outcomes)
	}
	missing := slices.ContainsFunc(outcomes, func(o *outcome) bool { return !o.done() && o.status != statusPlanned })
	switch {
	case ctx.Err() != nil:
		err = errInterrupted
	case missing && err != nil:
		sayProblem(err)
		fallthrough
	case missing:
		err = &problem{error: errReported, code: exitFailed}
	}
	if r.unwritten == nil {
		return err
	}
	lost := &problem{error: fmt.Errorf("writing the result: %w", r.unwritten), code: exitIncomplete}
	if err != nil {
		sayProblem(lost)
		return err
	}
	if r.options.dryRun {
		lost.code = exitFailed // it was all that was asked for
	}
	return lost
}

// An object is the JSON form of an outcome, which the README documents.
type object struct {
	Serial       string   `json:"serial"`
	Status       status   `json:"status"`
	Attempts     int      `json:"attempts"`
	Time         string   `json:"time"`
	ReasonCode   *int     `json:"reasonCode,omitempty"`
	ReasonName   string   `json:"reasonName,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	AuthorizedBy string   `json:"authorizedBy,omitempty"`
	CA           string   `json:"ca"`
	Subject      string   `json:"subject,omitempty"`
	SANs         []string `json:"sans,omitempty"`
	NotAfter     string   `json:"notAfter,omitempty"`
	RequestID    string   `json:"requestId,omitempty"`
	Error        string   `json:"error,omitempty"`
	Verified     *bool    `json:"verified,omitempty"`
}

// write writes an outcome as JSON, if that is asked for. A revocation that
// nobody can read of has happened all the same: conclude tells what is missing.
func (r *report) write(o *outcome) {
	if !r.options.json {
		return
	}
	line, err := json.Marshal(r.object(o))
	if err == nil {
		_, err = fmt.Println(printableJSON(line))
	}
	r.unwritten = cmp.Or(r.unwritten, err)
}

func (r *report) object(o *outcome) *object {
	j := &object{
		Serial: o.target.serial.String(), Status: o.status, Attempts: o.attempts, Time: stamp(o.time),
		AuthorizedBy: r.authorizedBy, CA: r.options.caName(), Verified: o.verified,
	}
	if !r.options.offline {
		j.RequestID = o.requestID // without a CA that answers nobody logs it
	}
	if o.err != nil && !o.done() && o.status != statusPlanned {
		j.Error = o.err.Error()
	}
	if code, name, text, ok := r.reasonOf(o); ok {
		j.ReasonCode, j.ReasonName, j.Reason = &code, name, text
	}
	if cert := o.target.cert; cert != nil {
		j.Subject, j.SANs, j.NotAfter = cert.Subject.String(), sansOf(cert), stamp(cert.NotAfter)
	}
	return j
}

// reasonOf is the reason on record: what was read, or what the CA has just
// confirmed or would be asked to record.
func (r *report) reasonOf(o *outcome) (code int, name, text string, ok bool) {
	code, text = r.options.reasonCode.code, r.options.reason
	switch {
	case o.record != nil && o.status == statusRevoked:
		code, text = o.record.code, cmp.Or(o.record.reason, text) // a CRL has no text
	case o.record != nil:
		code, text = o.record.code, o.record.reason
	case o.status != statusRevoked && o.status != statusPlanned || r.options.looks():
		return 0, "", "", false
	}
	return code, reasonName(code), text, true
}

// sansOf are the subject alternative names of a certificate.
func sansOf(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// printPlan prints what a dry run has found, as a table on standard output.
func (r *report) printPlan(outcomes []*outcome) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERIAL NUMBER\tSTATUS\tREASON\tSUBJECT\tAUTHORIZED BY")
	for _, o := range outcomes {
		_, reason, text, _ := r.reasonOf(o)
		if text != "" {
			reason += " (" + text + ")"
		}
		var subject string
		if o.target.cert != nil {
			subject = o.target.cert.Subject.String()
		}
		cells := []string{o.target.serial.String(), string(o.status), reason, subject, r.authorizedBy}
		for i, cell := range cells {
			cells[i] = cmp.Or(printable(cell), "-")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	r.unwritten = cmp.Or(r.unwritten, w.Flush())
}

// sayOutcome prints what became of one certificate.
func sayOutcome(o *outcome) {
	serial := o.target.serial
	switch o.status {
	case statusRevoked:
		say("Certificate with Serial Number %s has been revoked.", serial)
	case statusAlreadyRevoked:
		say("Certificate with Serial Number %s was already revoked.", serial)
		if o.unanswered {
			say("hint: perhaps by an earlier attempt of this run, which got no clear answer")
		} else {
			say("hint: the reason on record is the one that was given then")
		}
		if o.crlStale {
			sayMarked(warn, "the CA failed after it had stored the revocation: its CRL may lack it until the next one")
		}
	case statusPlanned:
	case statusNotAttempted:
		say("Certificate with Serial Number %s was not attempted.", serial)
	case statusUnknown:
		sayProblem(fmt.Errorf("it is not known whether the certificate with serial number %s is revoked: %w", serial, o.err))
		say("hint: run the same command again with a new token, if it had one: it says 'already revoked' if this went through; --dry-run --verify looks without revoking")
	default:
		sayProblem(fmt.Errorf("the certificate with serial number %s was not revoked: %w", serial, o.err))
	}
}

// sayVerified prints what is on record about one certificate.
func (r *report) sayVerified(o *outcome) {
	where := "CRL"
	if r.options.offline {
		where = "database"
	}
	switch serial := o.target.serial; {
	case o.record != nil && (o.record.listed || o.verified == nil):
		sayMarked(good, "serial number %s is on record as revoked at %s, reason %s", serial, stamp(o.record.time), reasonName(o.record.code))
	case o.record != nil:
		sayMarked(warn, "serial number %s is on record as revoked at %s, reason %s, but not in the CRL", serial, stamp(o.record.time), reasonName(o.record.code))
	case o.verified != nil:
		sayMarked(warn, "serial number %s is not on record as revoked in the CA's %s", serial, where)
	}
}

// printOut prints what was asked for on standard output.
func printOut(text string) error {
	if _, err := fmt.Print(text); err != nil {
		return fmt.Errorf("writing to standard output: %w", err)
	}
	return nil
}
