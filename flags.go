package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli"
)

// flagsFirst moves flags before the arguments, which is where package flag
// looks for them, and tells which flags there are, by their first name. It does
// what urfave/cli does itself for commands, but knows which flags take a value,
// and takes no flag for one. A number behind a dash is an argument.
func flagsFirst(flags []cli.Flag, args []string) (sorted []string, given map[string]bool, err error) {
	given = map[string]bool{}
	var rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		name, hasValue, isFlag := flagName(arg)
		if !isFlag {
			rest = append(rest, arg)
			continue
		}
		sorted = append(sorted, arg)
		first, isBool, known := findFlag(flags, name)
		if given[first] && !isBool && !mayRepeat[first] {
			return nil, nil, usagef("%s is given twice", dashed(first))
		}
		given[first] = known
		if !known || isBool || hasValue {
			continue
		}
		if i++; i == len(args) || args[i] == "--" {
			return nil, nil, usagef("%s has no value", dashed(name))
		}
		if value, _, isFlag := flagName(args[i]); isFlag {
			if _, _, known := findFlag(flags, value); known {
				return nil, nil, usagef("%s has no value, but the flag %s after it", dashed(name), dashed(value)).
					hint("write %s=%s if that is the value", dashed(name), args[i])
			}
		}
		sorted = append(sorted, args[i])
	}
	return append(append(sorted, "--"), rest...), given, nil
}

// mayRepeat are the flags that take several values.
var mayRepeat = map[string]bool{"cert": true, "x5c-chain": true}

// flagName is the name of the flag that a word is, if it is one.
func flagName(word string) (name string, hasValue, isFlag bool) {
	name = strings.TrimLeft(word, "-")
	if name == word || name == "" || name[0] >= '0' && name[0] <= '9' {
		return "", false, false
	}
	name, _, hasValue = strings.Cut(name, "=")
	return name, hasValue, true
}

// findFlag looks a flag up by any of its names.
func findFlag(flags []cli.Flag, name string) (first string, isBool, known bool) {
	for _, f := range flags {
		names := strings.Split(f.GetName(), ", ")
		if slices.Contains(names, name) {
			return names[0], !f.(cli.DocGenerationFlag).TakesValue(), true
		}
	}
	return name, false, false
}

// conflicts are the flags that exclude each other. Only the command line
// counts: what the environment or defaults.json say gives way.
var conflicts = [][2]string{
	{"token", "token-file"},
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

// requirements are the flags that mean nothing without another one.
var requirements = [][2]string{
	{"key", "cert"},
	{"key-password-file", "key"},
	{"x5c-cert", "x5c-key"}, {"x5c-key", "x5c-cert"}, {"x5c-chain", "x5c-cert"},
	{"ca-config", "offline"},
	{"ca-password-file", "offline"},
}

// checkFlags finds flags on the command line that contradict each other.
func checkFlags(c *cli.Context, given map[string]bool) error {
	for _, pair := range conflicts {
		if given[pair[0]] && given[pair[1]] {
			err := usagef("--%s and --%s exclude each other", pair[0], pair[1])
			if text, ok := conflictHints[pair]; ok {
				return err.hint("%s", text)
			}
			return err
		}
	}
	for _, pair := range requirements {
		if given[pair[0]] && !c.IsSet(pair[1]) {
			return usagef("--%s needs --%s", pair[0], pair[1])
		}
	}
	for _, name := range mustHaveValue {
		if given[name] && c.String(name) == "" {
			return usagef("--%s has no value", name)
		}
	}
	if slices.Contains(c.StringSlice("cert"), "") {
		return usagef("--cert has no value")
	}
	return checkReadOnce(c)
}

// checkReadOnce makes sure that no pipe is named twice: the second reader would
// wait for what the first one has taken. What is already open, like standard
// input, counts as one even where it is a file.
func checkReadOnce(c *cli.Context) error {
	type pipe struct {
		flag string
		info os.FileInfo
	}
	var pipes []pipe
	for _, f := range allFlags() {
		name := strings.Split(f.GetName(), ", ")[0]
		if valueWord.FindString(f.(cli.DocGenerationFlag).GetUsage()) != "<file>" {
			continue
		}
		files := c.StringSlice(name)
		if files == nil {
			files = []string{c.String(name)}
		}
		for _, file := range files {
			if file == "-" && name == "from" {
				file = "/dev/stdin"
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) == 0 && !isOpenFile(file) {
				continue
			}
			for _, p := range pipes {
				if os.SameFile(p.info, info) {
					return usagef("--%s and --%s both read %s, which can be read only once", p.flag, name, file)
				}
			}
			pipes = append(pipes, pipe{name, info})
		}
	}
	return nil
}

// isOpenFile tells whether a name stands for a file that is already open.
func isOpenFile(name string) bool {
	name = filepath.Clean(name)
	return name == "/dev/stdin" || strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/")
}

// mustHaveValue are the flags whose empty value is a mistake, most likely an
// unset variable of a script.
var mustHaveValue = []string{
	"from", "journal", "key", "key-password-file", "token", "token-file", "provisioner", "kid", "provisioner-password-file",
	"provisioner-key", "x5c-cert", "x5c-key", "ca-config", "ca-password-file", "ca-url", "root", "fingerprint", "context",
}

// isAny tells whether one of the flags is given.
func isAny(given map[string]bool, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return given[name] })
}
