package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli"
)

// excluding and needing are the tables conflicts and requirements once more, so
// that no row is lost, and none is added, without notice.
var excluding = map[string]string{
	"token":      "token-file cert provisioner kid provisioner-password-file provisioner-key x5c-cert offline",
	"token-file": "cert provisioner kid provisioner-password-file provisioner-key x5c-cert offline",
	"x5c-cert":   "kid provisioner-key",
	"key":        "x5c-cert provisioner kid provisioner-password-file provisioner-key",
	"offline":    "ca-url root fingerprint",
}

var excludingHints = map[string]string{
	"token offline":      "step-ca takes only tokens made after it has started, and --offline starts it",
	"token-file offline": "step-ca takes only tokens made after it has started, and --offline starts it",
	"offline ca-url":     "--offline opens the CA that --ca-config describes",
}

var needing = map[string]string{
	"key": "cert", "key-password-file": "key",
	"x5c-cert": "x5c-key", "x5c-key": "x5c-cert", "x5c-chain": "x5c-cert",
	"ca-config": "offline", "ca-password-file": "offline",
}

// TestFlagPairs gives any two flags together, in both orders, and each flag
// alone.
func TestFlagPairs(t *testing.T) {
	t.Parallel()
	flags := map[string]string{} // with a value that is right
	for _, f := range allFlags() {
		name, _, _ := strings.Cut(f.GetName(), ", ")
		switch f.(type) {
		case cli.BoolFlag:
			flags[name] = "--" + name
		case cli.DurationFlag:
			flags[name] = "--" + name + "=1s"
		default:
			flags[name] = "--" + name + "=1"
		}
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
		t.Errorf("error %v, want no conflict", err)
	}
}

// checkLine does with a command line what the program does until its flags are
// known not to contradict each other.
func checkLine(t *testing.T, line ...string) error {
	t.Helper()
	args, given, err := flagsFirst(allFlags(), line)
	if err != nil {
		return err
	}
	checked := errors.New("not checked")
	command := revokeCommand(t.Context(), given)
	command.Action = func(c *cli.Context) error {
		checked = checkFlags(c, given)
		return nil
	}
	app := cli.NewApp()
	app.HideVersion = true
	app.Commands = []cli.Command{command}
	if err := app.Run(append([]string{"step", command.Name}, args...)); err != nil {
		return err
	}
	return checked
}
