package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// excluding and needing are the tables conflicts and requirements once more, so
// that no row is lost, and none is added, without notice.
var excluding = map[string]string{
	"token":      "token-file cert provisioner kid provisioner-password-file provisioner-key x5c-cert offline",
	"token-file": "cert provisioner kid provisioner-password-file provisioner-key x5c-cert offline",
	"x5c-cert":   "kid provisioner-key",
	"key":        "x5c-cert provisioner kid provisioner-password-file provisioner-key",
	"offline":    "ca-url root fingerprint",
	"where":      "from cert key token token-file",
}

var excludingHints = map[string]string{
	"token offline":      "step-ca takes only tokens made after it has started, and --offline starts it",
	"token-file offline": "step-ca takes only tokens made after it has started, and --offline starts it",
	"offline ca-url":     "--offline opens the CA that --ca-config describes",
}

var needing = map[string]string{
	"key": "cert", "key-password-file": "key or --where",
	"x5c-cert": "x5c-key", "x5c-key": "x5c-cert", "x5c-chain": "x5c-cert",
	"ca-config": "offline or --where", "ca-password-file": "offline",
}

// TestFlagPairs gives any two flags together, in both orders, and each flag
// alone.
func TestFlagPairs(t *testing.T) {
	t.Parallel()
	flags := map[string]string{} // with a value that is right
	for _, f := range allFlags() {
		flags[f.name()] = map[kind]string{noValue: "", duration: "=1s"}[f.value]
		if f.value != noValue && f.value != duration {
			flags[f.name()] = "=1"
		}
		flags[f.name()] = "--" + f.name() + flags[f.name()]
	}
	delete(flags, "help")
	delete(flags, "version")
	for a := range flags {
		err := checkLine(t, flags[a])
		if want := needing[a]; want == "" && err != nil || want != "" && fmt.Sprint(err) != fmt.Sprintf("--%s needs --%s", a, want) {
			t.Errorf("--%s: error %v, want it to need %q", a, err, want)
		}
		for b := range flags {
			if a != b {
				checkPair(t, a, b, checkLine(t, flags[a], flags[b]))
			}
		}
	}
}

// checkPair checks the error of two flags that are given together.
func checkPair(t *testing.T, a, b string, err error) {
	t.Helper()
	if slices.Contains(strings.Fields(excluding[b]), a) {
		a, b = b, a
	}
	switch {
	case slices.Contains(strings.Fields(excluding[a]), b):
		checkProblem(t, a+" and "+b, err, fmt.Sprintf("--%s and --%s exclude each other", a, b), excludingHints[a+" "+b])
	case err != nil && strings.Contains(err.Error(), "exclude"):
		t.Errorf("%v, but they do not", err)
	}
}

// checkLine does with a command line what the program does until its flags are
// known not to contradict each other.
func checkLine(t *testing.T, line ...string) error {
	t.Helper()
	args, on, err := flagsFirst(line)
	if err != nil {
		return err
	}
	checked := errors.New("not checked")
	command := revokeCommand(t.Context(), on)
	command.Action = func(c *cli.Context) error {
		checked = checkFlags(c, on)
		return nil
	}
	app := cli.NewApp()
	app.HideVersion, app.Writer = true, io.Discard
	app.Commands = []cli.Command{command}
	if err := app.Run(append([]string{"step", command.Name}, args...)); err != nil {
		return err
	}
	return checked
}

func TestFlagsFirst(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want, given string }{
		{"123", "-- 123", ""},
		{"123 --reason x 456", "--reason x -- 123 456", "reason"},
		{"--offline 123 --reason x", "--offline --reason x -- 123", "offline reason"},
		{"123 --offline", "--offline -- 123", "offline"},
		{"-f 123", "-f -- 123", "force"},
		{"--offline=false 123", "--offline=false -- 123", ""},
		{"--offline=true 123", "--offline=true -- 123", "offline"},
		{"--offline=maybe 123", "--offline=maybe -- 123", "offline"},
		{"--reason=x 123 --reason-code 1", "--reason=x --reason-code 1 -- 123", "reason reasonCode"},
		{"-reason x 123", "-reason x -- 123", "reason"},
		{"--issuer a --password-file b", "--issuer a --password-file b --", "provisioner provisioner-password-file"},
		{"--reason=--offline 123", "--reason=--offline -- 123", "reason"},
		{"--reason --nonsense 123", "--reason --nonsense -- 123", "reason"},
		{"--reasonCode -1 123", "--reasonCode -1 -- 123", "reasonCode"},
		{"-5", "-- -5", ""},
		{"123 -- --reason", "-- 123 --reason", ""},
		{"- 123", "-- - 123", ""},
		{"--nonsense 123", "--nonsense -- 123", ""},
	}
	for _, tt := range tests {
		sorted, on, err := flagsFirst(strings.Fields(tt.in))
		if err != nil {
			t.Errorf("flagsFirst(%q): %v", tt.in, err)
		}
		if got := strings.Join(sorted, " "); got != tt.want {
			t.Errorf("flagsFirst(%q) = %q, want %q", tt.in, got, tt.want)
		}
		maps.DeleteFunc(on, func(_ string, known bool) bool { return !known })
		if got := strings.Join(slices.Sorted(maps.Keys(on)), " "); got != tt.given {
			t.Errorf("flagsFirst(%q): given %q, want %q", tt.in, got, tt.given)
		}
	}
}

func TestFlagWithoutValue(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, wantErr, wantHint string }{
		{"123 --reason", "--reason has no value", ""},
		{"--reason -- 123", "--reason has no value", ""},
		{"--reason --offline 123", "--reason has no value: the flag --offline follows it", "--reason=--offline"},
		{"--token -f 123", "--token has no value: the flag -f follows it", ""},
		{"--cert --key=x.key", "--cert has no value: the flag --key follows it", ""},
		{"--reason --token=secret 123", "--reason has no value: the flag --token follows it", "write --reason=--token=… if that"},
	}
	for _, tt := range tests {
		_, _, err := flagsFirst(strings.Fields(tt.in))
		checkProblem(t, tt.in, err, tt.wantErr, tt.wantHint)
	}
}

// TestFlagTable makes sure that the tables about flags name flags that exist,
// and that the preset of a flag is a value for it.
func TestFlagTable(t *testing.T) {
	t.Parallel()
	rows := slices.Clone(requirements)
	for _, pair := range conflicts {
		rows = append(rows, pair[:])
	}
	for _, row := range rows {
		for _, name := range row {
			if f := findFlag(name); f == nil || f.name() != name {
				t.Errorf("there is no flag %s", name)
			}
		}
	}
	for pair := range conflictHints {
		if !slices.Contains(conflicts, pair) {
			t.Errorf("a hint for %v, which do not exclude each other", pair)
		}
	}
	seen := map[string]bool{}
	for _, f := range allFlags() {
		for _, name := range f.names {
			if seen[name] || strings.ContainsAny(name, ", ") {
				t.Errorf("the name %q", name)
			}
			seen[name] = true
		}
		if f.preset != "" && f.value.check(f.preset) != nil || f.many && f.value == noValue || strings.ContainsAny(f.usage, "<>") {
			t.Errorf("the row of %s", f.name())
		}
	}
}

// TestEmptyValue gives every flag an empty value, and those that may be repeated
// also one behind another value.
func TestEmptyValue(t *testing.T) {
	t.Parallel()
	for _, f := range allFlags() {
		if f.value.mayBeEmpty() {
			continue
		}
		name := "--" + f.name()
		lines := [][]string{{name + "="}, {name, ""}}
		if f.many {
			lines = append(lines, []string{name + "=x", name + "="}, []string{name, "", name, "x"})
		}
		for _, line := range lines {
			checkProblem(t, fmt.Sprintf("%q", line), checkLine(t, line...), name+" has no value", "")
		}
	}
}

// TestPages makes sure that every flag, reason and property is in what is made from
// their tables.
func TestPages(t *testing.T) {
	t.Parallel()
	pages := map[string]string{"help": helpText(), "man": strings.ReplaceAll(manPage(), `\-`, "-")}
	for shell, script := range completions {
		pages[shell] = script()
	}
	for title, page := range pages {
		for _, f := range allFlags() {
			for _, name := range f.names {
				typed := dashed(name)
				if title == "fish" {
					typed = fmt.Sprintf(" -%c %s ", "sl"[min(len(name)-1, 1)], name)
				}
				if !strings.Contains(page, typed) {
					t.Errorf("%s: %s is missing", title, typed)
				}
			}
		}
		for _, r := range reasons {
			if !strings.Contains(page, r.name) {
				t.Errorf("%s: %s is missing", title, r.name)
			}
		}
		for _, p := range target.Properties {
			if !strings.Contains(page, p.Name+"=") {
				t.Errorf("%s: %s= is missing", title, p.Name)
			}
		}
	}
}
