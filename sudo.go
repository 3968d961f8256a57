package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/smallstep/cli-utils/step"

	"github.com/step-plugins/step-revoke-plugin/internal/database"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// withCommand says how to run this as the user that the CA's database belongs to.
func withCommand(err error) error {
	if foreign := (*database.OwnerError)(nil); errors.As(err, &foreign) {
		hinted := problem.New("%w", err).Hint("run it as that user: %s", sudoCommand(foreign.Owner))
		if program := executable(); foreign.Owner != "root" && !everybodyRuns(program) {
			return hinted.Hint("not everybody can run %s: a copy in /usr/local/bin, for instance, is one that %s can", program, foreign.Owner)
		}
		return hinted
	}
	return err
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
