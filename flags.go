package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/offline"
	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
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

// given are the flags that stand on the command line itself, by their names. A
// boolean flag that is set to false is not given.
type given map[string]bool

// any tells whether one of the flags is given.
func (g given) any(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return g[name] })
}

// flagsFirst moves flags before the arguments, where package flag looks for
// them, and tells which flags there are. It does what urfave/cli does itself for
// commands, but knows which flags take a value, and takes no flag for a value. A
// number behind a dash is an argument.
func flagsFirst(args []string) (sorted []string, on given, err error) {
	on = given{}
	var rest []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		name, value, hasValue, isFlag := splitFlag(args[i])
		if !isFlag {
			rest = append(rest, args[i])
			continue
		}
		sorted = append(sorted, args[i])
		f := findFlag(name)
		if f == nil {
			continue // package flag refuses it
		}
		if on[f.name()] && f.value != noValue && !f.many {
			return nil, nil, problem.New("%s is given twice", dashed(f.name()))
		}
		yes, err := strconv.ParseBool(value)
		on[f.name()] = f.value != noValue || !hasValue || err != nil || yes
		if f.value == noValue {
			continue
		}
		if !hasValue {
			i++
			if value, err = valueIn(args[i:], name); err != nil {
				return nil, nil, err
			}
			sorted = append(sorted, value)
		}
		if value == "" && !f.value.mayBeEmpty() { // urfave/cli drops it if the flag is repeated
			return nil, nil, problem.New("%s has no value", dashed(f.name()))
		}
	}
	return append(append(sorted, "--"), rest...), on, nil
}

// valueIn returns the value of a flag from the words after it.
func valueIn(rest []string, name string) (string, error) {
	if len(rest) == 0 || rest[0] == "--" {
		return "", problem.New("%s has no value", dashed(name))
	}
	if next, _, more, isFlag := splitFlag(rest[0]); isFlag && findFlag(next) != nil {
		typed := dashed(next)
		if more { // a token, maybe
			typed += "=…"
		}
		return "", problem.New("%s has no value: the flag %s follows it", dashed(name), dashed(next)).
			Hint("write %s=%s if that is the value", dashed(name), typed)
	}
	return rest[0], nil
}

// splitFlag takes a word of the command line apart, if it is a flag.
func splitFlag(word string) (name, value string, hasValue, isFlag bool) {
	name = strings.TrimLeft(word, "-")
	if name == word || name == "" || name[0] >= '0' && name[0] <= '9' {
		return "", "", false, false
	}
	name, value, hasValue = strings.Cut(name, "=")
	return name, value, hasValue, true
}

// flagError words an error of package flag in the way of the others.
func flagError(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return problem.New("there is no flag %s", dashed(name)).Hint(seeHelp)
	}
	if _, name, ok := strings.Cut(err.Error(), " for -"); ok && strings.HasPrefix(err.Error(), "invalid boolean value ") {
		name, _, _ = strings.Cut(name, ":")
		return problem.New("%s is either true or false", dashed(name))
	}
	for _, f := range allFlags() {
		value, _, ok := strings.Cut(strings.TrimPrefix(err.Error(), "invalid value "), " for flag -"+f.name()+":")
		if ok && f.value == numberValue {
			return problem.New("%s is not a valid value for %s, which takes a whole number", value, dashed(f.name()))
		}
	}
	return problem.New("%w", err).Hint(seeHelp)
}

const seeHelp = "see 'step revoke --help'"

// conflicts are the flags that exclude each other. Only the command line
// counts: what is inherited gives way.
var conflicts = [][2]string{
	{"token", "token-file"},
	{"where", "from"}, {"where", "cert"}, {"where", "key"}, {"where", "token"}, {"where", "token-file"},
	{"token", "cert"}, {"token-file", "cert"},
	{"token", "provisioner"}, {"token-file", "provisioner"},
	{"token", "kid"}, {"token-file", "kid"},
	{"token", "provisioner-password-file"}, {"token-file", "provisioner-password-file"},
	{"token", "provisioner-key"}, {"token-file", "provisioner-key"},
	{"token", "x5c-cert"}, {"token-file", "x5c-cert"},
	{"token", "offline"}, {"token-file", "offline"},
	{"x5c-cert", "kid"}, {"x5c-cert", "provisioner-key"},
	{"key", "x5c-cert"}, {"key", "provisioner"}, {"key", "kid"}, {"key", "provisioner-password-file"}, {"key", "provisioner-key"},
	{"offline", "ca-url"}, {"offline", "root"}, {"offline", "fingerprint"},
}

// conflictHints say more about a conflict than that there is one.
var conflictHints = map[[2]string]string{
	{"token", "offline"}:      "step-ca takes only tokens made after it has started, and --offline starts it",
	{"token-file", "offline"}: "step-ca takes only tokens made after it has started, and --offline starts it",
	{"offline", "ca-url"}:     "--offline opens the CA that --ca-config describes",
}

// requirements are the flags that mean nothing without another one, or without
// one of two.
var requirements = [][]string{
	{"key", "cert"},
	{"key-password-file", "key", "where"},
	{"x5c-cert", "x5c-key"}, {"x5c-key", "x5c-cert"}, {"x5c-chain", "x5c-cert"},
	{"ca-config", "offline", "where"},
	{"ca-password-file", "offline"},
}

// checkFlags finds flags on the command line that contradict each other, or lack
// each other.
func checkFlags(c *cli.Context, on given) error {
	for _, pair := range conflicts {
		if on[pair[0]] && on[pair[1]] {
			err := problem.New("--%s and --%s exclude each other", pair[0], pair[1])
			if text, ok := conflictHints[pair]; ok {
				return err.Hint("%s", text)
			}
			return err
		}
	}
	for _, row := range requirements {
		if on[row[0]] && !slices.ContainsFunc(row[1:], c.IsSet) {
			return problem.New("--%s needs --%s", row[0], strings.Join(row[1:], " or --"))
		}
	}
	if on["where"] && c.NArg() > 0 {
		return problem.New("--where cannot be combined with serial numbers").Hint("revoke them in a separate run")
	}
	return checkReadOnce(c)
}

// valuesOf are the values of a flag, wherever they come from.
func valuesOf(c *cli.Context, f *flag) []string {
	if f.many {
		return c.StringSlice(f.name())
	}
	return []string{c.String(f.name())}
}

// checkReadOnce makes sure that no pipe is named twice: the second reader would
// wait for what the first one has taken. A file that is already open, like
// standard input, counts as a pipe.
func checkReadOnce(c *cli.Context) error {
	type pipe struct {
		flag string
		info os.FileInfo
	}
	var pipes []pipe
	for _, f := range allFlags() {
		if f.value != fileName {
			continue
		}
		for _, file := range valuesOf(c, f) {
			if file == "-" && f.name() == "from" {
				file = "/dev/stdin"
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) == 0 && !isOpenFile(file) {
				continue
			}
			for _, p := range pipes {
				if os.SameFile(p.info, info) && p.flag == f.name() {
					return problem.New("--%s names %s twice, which can be read only once", p.flag, file)
				}
				if os.SameFile(p.info, info) {
					return problem.New("--%s and --%s both read %s, which can be read only once", p.flag, f.name(), file)
				}
			}
			pipes = append(pipes, pipe{flag: f.name(), info: info})
		}
	}
	return nil
}

// isOpenFile tells whether a name stands for a file that is already open.
func isOpenFile(name string) bool {
	name = filepath.Clean(name)
	return name == "/dev/stdin" || strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/")
}

// applyDefaults gives flags that are set neither on the command line nor by a
// variable their values in defaults.json: under the first of their names that is
// there. step.CtxState.Apply does the same, but ignores silently what a flag
// cannot take, and writes 1000000 as 1e+06.
func applyDefaults(c *cli.Context) error {
	defaults, err := step.Contexts().GetConfig()
	if err != nil {
		return err
	}
	for _, f := range allFlags() {
		i := slices.IndexFunc(f.names, func(name string) bool { return defaults[name] != nil })
		if i < 0 || !f.inherited || c.IsSet(f.name()) {
			continue
		}
		values, isList := defaults[f.names[i]].([]any)
		if !isList || !f.many {
			values = []any{defaults[f.names[i]]}
		}
		for _, value := range values {
			text := fmt.Sprint(value)
			if number, ok := value.(float64); ok {
				text = strconv.FormatFloat(number, 'f', -1, 64)
			}
			if f.value.check(text) != nil || isList && !f.many {
				return problem.New("%q is not a valid value for %q in defaults.json of %s", text, f.names[i], step.Path())
			}
			if err := c.Set(f.name(), text); err != nil {
				return problem.New("%q in defaults.json of %s: %w", f.names[i], step.Path(), err)
			}
		}
	}
	return nil
}

// sudoCommand is this very command line as another user would have to run it,
// with those of step's variables that count for it. A token in a variable is
// left out, because others could see it, and so is the name of a file that is not
// there: it may be a password.
func sudoCommand(user string) string {
	words := []string{"sudo", "-u", user, "env", step.PathEnv + "=" + step.BasePath()}
	for _, f := range allFlags() {
		value, ok := os.LookupEnv(variableOf(f.name()))
		if secret := f.value == tokenValue || f.value == fileName && !exists(value); ok && !secret {
			words = append(words, variableOf(f.name())+"="+value)
		}
	}
	words = append(append(words, executable()), os.Args[1:]...)
	for i, word := range words {
		words[i] = shellQuote(word)
	}
	return strings.Join(words, " ")
}

// executable is the file of this program.
func executable() string {
	if file, err := os.Executable(); err == nil {
		return file
	}
	return os.Args[0]
}

// everybodyRuns tells whether the modes of a file and of the directories above it let
// everybody run it, as far as that is known. Home directories often do not.
func everybodyRuns(file string) bool {
	for {
		info, err := os.Stat(file)
		if err == nil && info.Mode().Perm()&1 == 0 {
			return false
		}
		above := filepath.Dir(file)
		if above == file {
			return true
		}
		file = above
	}
}

// shellQuote writes a word so that a shell reads it as it is.
func shellQuote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
