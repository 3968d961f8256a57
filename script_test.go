//go:build unix

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the sessions in testdata/script, all of them in parallel.
func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/script"))
}
