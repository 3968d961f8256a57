package main

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// helpIntro comes before the flags: what to type first, what it means after.
const helpIntro = `step revoke -- revoke certificates issued by a step-ca certificate authority

EXAMPLES
  A certificate by its serial number, authorized by a provisioner of the CA:
    $ step revoke 308893286343609293989051180431574390766

  With a reason:
    $ step revoke --reason "laptop stolen" --reasonCode keyCompromise 308893286343609293989051180431574390766

  The certificate in a file, with its key as the proof:
    $ step revoke --cert mike.crt --key mike.key

  The certificate in a file whose key is not at hand:
    $ step revoke --cert mike.crt

  In a CI job, with nothing but the address and the fingerprint of the CA, an
  answer for a program, and the proof that it is in the CA's CRL:
    $ step-revoke-plugin --ca-url https://ca.example.com --fingerprint $CA_FINGERPRINT --provisioner ci --provisioner-password-file password.txt --cert old.crt --format json --verify

  Without revoking: what would be done, and what is revoked now:
    $ step revoke --dry-run --cert mike.crt
    $ step revoke --dry-run --verify --cert mike.crt

  Many at once: look first, then do exactly that, with a record on disk. If it
  is interrupted, the same command continues where it stopped:
    $ step revoke --dry-run --from serials.txt --reasonCode keyCompromise --format json > plan.json
    $ step revoke --from plan.json --journal revoked.journal

  By what they are, on the CA's host, while the CA runs: a host that was broken
  into, a leaked key with all renewals, what a provisioner has issued since:
    $ step revoke --where san=db1.example.com --reasonCode keyCompromise
    $ step revoke --where key=laptop.crt
    $ step revoke --where provisioner=ci --where issued-after=2026-11-01 --dry-run

  With a one-time token:
    $ step ca token 308893286343609293989051180431574390766 --revoke --output-file token.txt
    $ step revoke --token-file token.txt 308893286343609293989051180431574390766

  On the CA host, with the CA stopped; no provisioner is needed there:
    $ step revoke --offline 308893286343609293989051180431574390766

USAGE
  step revoke [<serial-number>...] [flags]

  A serial number is written in decimal, in hexadecimal with 0x in front, or as
  hexadecimal bytes with colons between them. Without any, and without --cert,
  --from and --where, it is asked for. Flags may come before, after and between
  serial numbers.

  Many certificates are revoked at the same time. Those of --from and --where
  are confirmed first, or need --force. Transient failures are tried again
  without holding up the others; a failure that no retry can fix ends the run
  at once.

  A revoked certificate cannot be renewed. Others who are shown it learn
  that it is revoked only from a CRL, which the CA must publish and they must
  read: step-ca has CRLs only if its ca.json turns them on.

  Completions for a shell, which is bash, zsh or fish, and the manual page:
    $ step-revoke-plugin completion bash
    $ step-revoke-plugin man
`

// usageText is for who types the bare name of the program, and has no CA either.
const usageText = `step-revoke-plugin revokes certificates issued by a step-ca certificate authority.

  step revoke SERIAL-NUMBER             where step knows the CA
  step revoke --cert mike.crt           a certificate in a file
  step revoke --from serials.txt        many certificates
  step revoke --where san=HOST          what the CA's host has on record
  step revoke --offline SERIAL-NUMBER   on the CA's host, with the CA stopped

No CA is configured here: run 'step ca bootstrap' once, or use --ca-url and
--fingerprint. 'step-revoke-plugin help' shows examples and all flags.`

// pageFor is what the command line asks to read, if that is all it asks for.
// args begin with the flags.
func pageFor(args []string, on given) (page string, err error) {
	line := strings.Join(args, " ")
	switch {
	case on["help"] || line == "-- help":
		return helpText(), nil
	case on["version"] || line == "-- version" || line == "-v --":
		return fmt.Sprintf("step-revoke-plugin/%s (%s/%s)\n", programVersion(), runtime.GOOS, runtime.GOARCH), nil
	case line == "-- man":
		return manPage(), nil
	case strings.HasPrefix(line+" ", "-- completion "):
		return completion(args[2:]...)
	}
	return "", nil
}

// isBare tells whether there is neither an argument nor a flag, nor anything that
// stands for one.
func isBare(c *cli.Context) bool {
	return c.NArg() == 0 && !slices.ContainsFunc(allFlags(), func(f *flag) bool { return c.IsSet(f.name()) })
}

// helpProperties, helpReasons, helpRest and helpCodes come after the flags.
const helpProperties = `
PROPERTIES
  --where chooses the certificates in the CA's database that can still do harm:
  those that are not revoked and not expired, unless their provisioner renews
  them after that. Names are compared as a whole, never a part of them. A time
  is one of RFC 3339, a date, which begins in UTC, or a duration before now.
  Without --offline the database is read while the CA runs: PostgreSQL, MySQL
  and MariaDB directly, Badger from a copy that is removed again. With --verify
  what matches and was revoked before is verified, too. --where chooses
  certificates
`

const helpReasons = `
REASONS
  A code or its name, in any case, with or without spaces, dashes and
  underscores:
`

const helpRest = `
HOLDS
  While a certificate is on certificateHold the CA does not renew it. It is in
  the CRL until the first one after the hold was lifted. Only on the CA's host
  can it be lifted, with --offline: released with --reasonCode removeFromCRL, or
  made permanent with any other reason. Clients that have cached a CRL that
  lists it use that CRL until it expires.

WHERE VALUES COME FROM
  The command line, then variables (--ca-url is STEP_CA_URL, and so on), then
  defaults.json of the step context in force. The flags that say what is
  revoked and why, or that turn off a check, are read from the command line
  only:
`

const helpCodes = `
EXIT CODES
    0  every certificate is revoked, now or before, or released as asked; or the
       dry run is done; or --dry-run --verify has found all of them revoked
    1  at least one is not known to be; or the confirmation was declined
    2  a flag, a file, a password or an answer is wrong or missing; nothing was
       revoked
    4  every certificate is revoked or released, but the CRL could not be
       rebuilt, --verify could not prove it, or the result or the journal could
       not be written
  130  interrupted
`

// helpText is the whole help, made from the tables of flags and reasons.
func helpText() string {
	var b strings.Builder
	b.WriteString(helpIntro)
	for _, group := range flagGroups {
		fmt.Fprintf(&b, "\n%s\n", group.title)
		for _, f := range group.flags {
			fmt.Fprintf(&b, "  %s\n      %s\n", f.synopsis(), strings.ReplaceAll(f.usage, "\n", "\n      "))
		}
	}
	b.WriteString(helpProperties)
	for _, p := range target.Properties {
		fmt.Fprintf(&b, "  %s=<%s>\n      %s\n", p.Name, p.Value, strings.ReplaceAll(p.Usage, "\n", "\n      "))
	}
	b.WriteString(helpReasons)
	for _, r := range reasons {
		fmt.Fprintf(&b, "  %3d  %-20s  %s\n", r.code, r.name, r.when)
	}
	b.WriteString(helpRest)
	for names := range slices.Chunk(commandLineOnly(), 5) {
		b.WriteString("    " + strings.Join(names, " ") + "\n")
	}
	b.WriteString(helpCodes)
	return b.String()
}

var (
	manTitle = regexp.MustCompile(`^[A-Z ]+$`)
	manItem  = regexp.MustCompile(`^ {2}\S`)
)

// manPage is the help as a manual page (groff_man(7)). The layout of the help says
// what a line is: a title, the text or item that begins behind two blanks, the
// explanation of an item behind six, or what must stay as it is behind four.
func manPage() string {
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)
	lines := strings.Split(helpText(), "\n") // the last one is empty
	_, about, _ := strings.Cut(lines[0], " -- ")
	var b strings.Builder
	fmt.Fprintf(&b, ".TH STEP\\-REVOKE\\-PLUGIN 1 \"\" \"step\\-revoke\\-plugin %s\"\n.nh\n.ad l\n.SH NAME\nstep\\-revoke\\-plugin \\- %s\n",
		escape.Replace(programVersion()), escape.Replace(about))
	asIs := false // within lines that are not filled
	for i, line := range lines[1 : len(lines)-1] {
		text, next := escape.Replace(strings.TrimSpace(line)), lines[i+2]
		if verbatim := strings.HasPrefix(line, "    ") && (asIs || !strings.HasPrefix(line, "      ")); verbatim != asIs {
			asIs = verbatim
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[asIs])
		}
		switch {
		case asIs:
			b.WriteString(escape.Replace(line[2:]) + "\n")
		case line == "" && !manTitle.MatchString(next):
			b.WriteString(".PP\n")
		case manTitle.MatchString(line):
			b.WriteString(".SH " + text + "\n")
		case manItem.MatchString(line) && strings.HasPrefix(next, "      "):
			b.WriteString(".TP\n.B " + text + "\n")
		case line != "":
			b.WriteString(`\&` + text + "\n") // no request, whatever it begins with
		}
	}
	return b.String()
}

// synopsis is a flag with all its names, as it is typed.
func (f *flag) synopsis() string {
	names := make([]string, len(f.names))
	for i, name := range f.names {
		if names[i] = dashed(name); f.value != noValue {
			names[i] += "=<" + string(f.value) + ">"
		}
	}
	return strings.Join(names, ", ")
}

// commandLineOnly are the flags that are not inherited.
func commandLineOnly() (names []string) {
	for _, f := range allFlags() {
		if !f.inherited && f.name() != "version" && f.name() != "help" {
			names = append(names, dashed(f.name()))
		}
	}
	return names
}
