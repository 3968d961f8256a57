package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

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
