package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli"
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
  is interrupted, the same command goes on where it stopped:
    $ step revoke --dry-run --from serials.txt --reasonCode keyCompromise --format json > plan.json
    $ step revoke --from plan.json --journal revoked.journal

  With a one-time token:
    $ step ca token 308893286343609293989051180431574390766 --revoke > token.txt
    $ step revoke --token-file token.txt 308893286343609293989051180431574390766

  On the CA host, with the CA stopped:
    $ step revoke --offline 308893286343609293989051180431574390766

USAGE
  step revoke [<serial-number>...] [flags]

  A serial number is written in decimal, in hexadecimal behind 0x, or as
  hexadecimal bytes with colons between them. Without any, and without --cert
  and --from, it is asked for. Flags may stand before, after and between serial
  numbers.

  Many certificates are revoked at the same time. Those of --from are confirmed
  first, or need --force. What fails for a passing reason is tried again without
  holding up the others; what no retry can mend ends the run at once.

  A revoked certificate cannot be renewed. Whether those who are shown the
  certificate learn of it depends on the CRL, which the CA must publish and they
  must read: step-ca has CRLs only where its ca.json turns them on.
`

// helpReasons and helpRest come after the flags.
const helpReasons = `
REASONS
  A code or its name, in any case, with or without spaces, dashes and
  underscores:
`

const helpRest = `
WHERE VALUES COME FROM
  The command line, then variables (--ca-url is STEP_CA_URL, and so on), then
  defaults.json of the step context in force. --cert, --key, --from, --reason,
  --reasonCode, --force, --allow-unknown, --dry-run, --verify and --journal come
  from the command line alone.

EXIT CODES
    0  every certificate is revoked, now or before; or the dry run is done
    1  at least one is not known to be revoked
    2  a mistake in the command or its files; nothing was sent or written
    3  every certificate is revoked, but the CRL could not be rebuilt, --verify
       could not prove it, or the result or the journal could not be written
  130  interrupted
`

// valueWord is the word in a flag's usage that stands for its value.
var valueWord = regexp.MustCompile(`<[^>]+>`)

// dashed is a flag's name as it is typed.
func dashed(name string) string { return strings.Repeat("-", min(len(name), 2)) + name }

// helpText is the whole help, made from the tables of flags and reasons.
func helpText() string {
	var b strings.Builder
	b.WriteString(helpIntro)
	for _, group := range flagGroups {
		fmt.Fprintf(&b, "\n%s\n", group.title)
		for _, f := range group.flags {
			usage := f.(cli.DocGenerationFlag).GetUsage()
			value := valueWord.FindString(usage)
			if value != "" {
				value = "=" + value
			}
			names := strings.Split(f.GetName(), ", ")
			for i, name := range names {
				names[i] = dashed(name) + value
			}
			text := valueWord.ReplaceAllStringFunc(usage, func(s string) string { return strings.Trim(s, "<>") })
			fmt.Fprintf(&b, "  %s\n      %s\n", strings.Join(names, ", "), strings.ReplaceAll(text, "\n", "\n      "))
		}
	}
	b.WriteString(helpReasons)
	for _, r := range reasons {
		fmt.Fprintf(&b, "  %3d  %-20s  %s\n", r.code, r.name, r.when)
	}
	b.WriteString(helpRest)
	return b.String()
}
