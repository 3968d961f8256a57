package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
)

// A kind is what a flag takes for its value: the word that stands for it in the
// help.
type kind string

const (
	noValue     kind = "" // true or false
	fileName    kind = "file"
	nameValue   kind = "name"
	keyID       kind = "kid"
	tokenValue  kind = "token"
	uriValue    kind = "uri"
	hexValue    kind = "hex"
	numberValue kind = "n"
	duration    kind = "duration"
	formatName  kind = "format"
	reasonCode  kind = "code"
	freeText    kind = "string"
	whereTerm   kind = "property=value"
)

// mayBeEmpty tells whether an empty value means something, or is refused where
// it is parsed. For all others it is a mistake, most likely an unset variable of
// a script.
func (k kind) mayBeEmpty() bool {
	return slices.Contains([]kind{noValue, numberValue, duration, formatName, reasonCode, freeText}, k)
}

// check tells whether a text can be a value of this kind.
func (k kind) check(text string) (err error) {
	switch k {
	case noValue:
		_, err = strconv.ParseBool(text)
	case numberValue:
		_, err = strconv.Atoi(text)
	case duration:
		_, err = time.ParseDuration(text)
	}
	return err
}

// A flag is one row of the table of flags.
type flag struct {
	names []string // the first one is its name, others are aliases
	value kind
	many  bool // it may be repeated
	// inherited flags may come from a variable or from defaults.json. What is
	// revoked and what guards it must not: a forgotten variable would add a target
	// or switch off a question.
	inherited bool
	preset    string
	usage     string
}

func (f *flag) name() string { return f.names[0] }

// flagGroups are the flags of the command in the order of its help, which is
// made from this table, as is every check that does not need to know one flag.
var flagGroups = []struct {
	title string
	flags []flag
}{
	{"WHAT TO REVOKE", []flag{
		{names: []string{"cert"}, value: fileName, many: true, usage: `The certificate to revoke, the first one in a PEM file.
With --key it authorizes its own revocation. Without, a provisioner does,
and the flag may be repeated`},
		{names: []string{"from"}, value: fileName, many: true, usage: `A file that names many certificates: serial numbers, one a line or in CSV,
or PEM certificates, or the output of --format json, of a dry run for
instance. A dash (-) is standard input; a directory stands for its PEM
files. May be repeated`},
		{names: []string{"where"}, value: whereTerm, many: true, usage: `Certificates by what they are, from the CA's database: see PROPERTIES. If
a property is repeated, any of its values matches; different ones must all
match`},
		{names: []string{"max"}, value: numberValue, usage: `Revoke nothing if there are more than n certificates`},
		{names: []string{"key"}, value: fileName, usage: `The private key of --cert, a PEM file`},
		{names: []string{"key-password-file"}, value: fileName, inherited: true, usage: `A file with the password of --key, or of the key that --where names, if
it is encrypted`},
		{names: []string{"reason"}, value: freeText, usage: `Why, in your own words: a string for the CA's records`},
		{names: []string{"reasonCode", "reason-code"}, value: reasonCode, usage: `Why, as a code of RFC 5280 or its name: see REASONS`},
		{names: []string{"allow-unknown"}, usage: `Revoke also what cannot be shown to be a certificate of this CA`},
		{names: []string{"force", "f"}, usage: `Answer yes to the confirmation`},
	}},
	{"HOW", []flag{
		{names: []string{"dry-run"}, usage: `Do everything but revoke, and show what would be revoked`},
		{names: []string{"verify"}, usage: `Check afterwards that the CA's CRL lists it; offline, that the database
does. With --dry-run: show what is revoked now`},
		{names: []string{"journal"}, value: fileName, usage: `A file that records every outcome. If it exists, the run continues where
the journal ends`},
		{names: []string{"concurrency"}, value: numberValue, inherited: true, usage: fmt.Sprintf(`Have up to n revocations in flight. The default is %d; offline it is %d,
or %d with a database server`, online.DefaultConcurrency, offline.FilesConcurrency, offline.ServerConcurrency)},
		{names: []string{"rate"}, value: numberValue, inherited: true, usage: `Begin at most n revocations per second`},
		{names: []string{"format"}, value: formatName, inherited: true, preset: "text", usage: `The format of standard output: text or json. With json it is one object
per certificate, each on its own line`},
		{names: []string{"timeout"}, value: duration, inherited: true, preset: "10s", usage: `How long one request may take; the default duration is 10s`},
		{names: []string{"retry-for"}, value: duration, inherited: true, preset: "30s", usage: `How long to retry after transient failures; the default duration is 30s,
and 0s means no retry`},
	}},
	{"WHO AUTHORIZES IT", []flag{
		{names: []string{"provisioner", "issuer"}, value: nameValue, inherited: true, usage: `The name of the provisioner; needed only where several fit`},
		{names: []string{"kid"}, value: keyID, inherited: true, usage: `The key ID (kid) of the provisioner`},
		{names: []string{"provisioner-password-file", "password-file"}, value: fileName, inherited: true, usage: `A file with the password of the provisioner's key, of
--provisioner-key or of --x5c-key`},
		{names: []string{"provisioner-key"}, value: fileName, inherited: true, usage: `A file with the provisioner's private key (JWK or PEM), for a CA that
does not hand it out`},
		{names: []string{"x5c-cert"}, value: fileName, inherited: true, usage: `A certificate that an X5C provisioner trusts, a PEM file; it may hold the
chain too`},
		{names: []string{"x5c-key"}, value: fileName, inherited: true, usage: `The private key of --x5c-cert, a PEM file`},
		{names: []string{"x5c-chain"}, value: fileName, many: true, inherited: true, usage: `A PEM file with more of the chain of --x5c-cert; may be repeated`},
		{names: []string{"token"}, value: tokenValue, inherited: true, usage: `A one-time token for the serial number, as made by step ca token --revoke.
Others can see it in the list of processes: prefer --token-file`},
		{names: []string{"token-file"}, value: fileName, inherited: true, usage: `A file with such a token`},
	}},
	{"WHICH CA", []flag{
		{names: []string{"ca-url"}, value: uriValue, inherited: true, usage: `The HTTPS address (uri) of the CA`},
		{names: []string{"root"}, value: fileName, inherited: true, usage: `The CA's root certificate, a PEM file`},
		{names: []string{"fingerprint"}, value: hexValue, inherited: true, usage: `The SHA-256 fingerprint (hex) of the CA's root certificate, which is
then fetched from the CA; needs no --root`},
		{names: []string{"context"}, value: nameValue, inherited: true, usage: `The name of the step context to use`},
	}},
	{"ON THE CA HOST", []flag{
		{names: []string{"offline"}, inherited: true, usage: `Revoke in the CA's own database, without the CA. Whoever may write that
authorizes it, unless a flag or a variable says who does`},
		{names: []string{"ca-config"}, value: fileName, inherited: true, usage: `The CA's configuration file. The default is $(step path)/config/ca.json.
It names the database for --offline and --where`},
		{names: []string{"ca-password-file"}, value: fileName, inherited: true, usage: `A file with the password of the CA's key, which signs the CRL. It is
needed only where the CA has CRLs`},
	}},
	{"OTHERS", []flag{
		{names: []string{"version"}, usage: `Print the version`},
		{names: []string{"help", "h"}, usage: `Print this help`},
	}},
}

// allFlags are the flags of all groups.
func allFlags() (all []*flag) {
	for _, group := range flagGroups {
		for i := range group.flags {
			all = append(all, &group.flags[i])
		}
	}
	return all
}

// findFlag looks a flag up by any of its names; nil is none.
func findFlag(name string) *flag {
	for _, f := range allFlags() {
		if slices.Contains(f.names, name) {
			return f
		}
	}
	return nil
}

// cliFlags is the table as urfave/cli takes it.
func cliFlags() (flags []cli.Flag) {
	for _, f := range allFlags() {
		name, variable := strings.Join(f.names, ", "), ""
		if !f.inherited {
			variable = step.IgnoreEnvVar
		}
		switch {
		case f.value == noValue:
			flags = append(flags, cli.BoolFlag{Name: name, EnvVar: variable})
		case f.value == numberValue:
			flags = append(flags, cli.IntFlag{Name: name, EnvVar: variable})
		case f.value == duration:
			preset, _ := time.ParseDuration(f.preset)
			flags = append(flags, cli.DurationFlag{Name: name, EnvVar: variable, Value: preset})
		case f.many:
			flags = append(flags, cli.StringSliceFlag{Name: name, EnvVar: variable})
		default:
			flags = append(flags, cli.StringFlag{Name: name, EnvVar: variable, Value: f.preset})
		}
	}
	return flags
}

// dashed is a flag's name as it is typed.
func dashed(name string) string { return strings.Repeat("-", min(len(name), 2)) + name }

// variableOf is the environment variable of a flag, by cli-utils' rules
// (step.SetEnvVar).
func variableOf(name string) string {
	return "STEP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
