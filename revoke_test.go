package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/journal"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func TestParseReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in                string
		want              int
		wantErr, wantHint string
	}{
		{in: "", want: 0},
		{in: "0", want: 0},
		{in: "6", want: 6},
		{in: "8", want: 8},
		{in: "10", want: 10},
		{in: "keyCompromise", want: 1},
		{in: "key compromise", want: 1},
		{in: "KEY-COMPROMISE", want: 1},
		{in: "key_compromise", want: 1},
		{in: "cACompromise", want: 2},
		{in: "ca compromise", want: 2},
		{in: "affiliationchanged", want: 3},
		{in: "Superseded", want: 4},
		{in: "cessation of operation", want: 5},
		{in: "RemoveFromCRL", want: 8},
		{in: "privilegeWithdrawn", want: 9},
		{in: "AACompromise", want: 10},
		{in: "7", wantErr: "reason code 7 is not used by RFC 5280", wantHint: "0 to 6 and 8 to 10"},
		{in: "11", wantErr: "reason code 11 does not exist", wantHint: "0 to 6 and 8 to 10"},
		{in: "-1", wantErr: "reason code -1 does not exist", wantHint: "0 to 6 and 8 to 10"},
		{in: "1.0", wantErr: `unknown reason code "1.0"`, wantHint: "0 to 6 and 8 to 10"},
		{in: "foo", wantErr: `unknown reason code "foo"`, wantHint: "0 to 6 and 8 to 10"},
		{in: "keycompromize", wantErr: `unknown reason code "keycompromize"`, wantHint: "did you mean keyCompromise?"},
		{in: "-", wantErr: `unknown reason code "-"`, wantHint: "0 to 6 and 8 to 10"},
		{in: " ", wantErr: `unknown reason code " "`, wantHint: "0 to 6 and 8 to 10"},
		{in: "--_", wantErr: `unknown reason code "--_"`, wantHint: "0 to 6 and 8 to 10"},
		{in: "supersede", wantErr: `unknown reason code "supersede"`, wantHint: "did you mean superseded?"},
		{in: "key comprimise", wantErr: `unknown reason code "key comprimise"`, wantHint: "did you mean keyCompromise?"},
	}
	for _, tt := range tests {
		got, err := parseReason(tt.in)
		if tt.wantErr == "" {
			if err != nil || got.Code != tt.want {
				t.Errorf("parseReason(%q) = %v, %v; want code %d", tt.in, got, err, tt.want)
			}
			continue
		}
		checkProblem(t, fmt.Sprintf("parseReason(%q)", tt.in), err, tt.wantErr, tt.wantHint)
	}
}

func TestParseReasonText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "stolen": "stolen", "Zo\xeb": "Zo\uFFFD", strings.Repeat("x", 100_000): strings.Repeat("x", 100_000)} {
		if got, err := parseReasonText(in); got != want || err != nil {
			t.Errorf("%.20q: %.20q, %v", in, got, err)
		}
	}
	_, err := parseReasonText(strings.Repeat("x", 100_001))
	checkProblem(t, "a long one", err, "the text of the reason has 100001 bytes", "at most 100000")
}

// checkProblem checks that err is a problem with this text and hint, and without
// an exit code: whoever knows whether the CA was contacted decides that.
func checkProblem(t *testing.T, what string, err error, text, hint string) {
	t.Helper()
	if !strings.Contains(fmt.Sprint(err), text) || problem.Code(problem.Default(err, problem.Usage)) != problem.Usage {
		t.Errorf("%s: error %v; want a usage error with %q", what, err, text)
		return
	}
	if hints := strings.Join(problem.Hints(err), "\n"); !strings.Contains(hints, hint) {
		t.Errorf("%s: hints %q; want one with %q", what, hints, hint)
	}
}

// TestHelp makes sure that the help has every flag and every reason, that its
// lines fit a terminal, and that it speaks the name people type.
func TestHelp(t *testing.T) {
	t.Parallel()
	help := helpText()
	for _, f := range allFlags() {
		for _, name := range f.names {
			if !strings.Contains(help, dashed(name)) {
				t.Errorf("the help lacks %s", dashed(name))
			}
		}
	}
	for _, r := range reasons {
		if !strings.Contains(help, r.name) || !strings.Contains(help, r.when) {
			t.Errorf("the help lacks the reason %s", r.name)
		}
	}
	for _, line := range strings.Split(help, "\n") {
		if len(line) > 80 && !strings.Contains(line, "$ step") {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
	if usage, examples := strings.Index(help, "USAGE"), strings.Index(help, "EXAMPLES"); examples < 0 || examples > usage {
		t.Error("the help does not open with examples")
	}
}

// TestSeconds shows that the documents name the waits that the screen names.
func TestSeconds(t *testing.T) {
	t.Parallel()
	var docs []byte
	for _, name := range []string{"README.md", "docs/guide.md", "docs/output.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, text...)
	}
	for _, text := range []string{
		"what is in flight gets at most " + seconds(batch.Grace),
		"waits for the journal, at most " + seconds(journal.Patience),
		"holds it open for more than " + seconds(journal.Patience),
	} {
		if !strings.Contains(string(docs), text) {
			t.Errorf("the documents lack %q", text)
		}
	}
}
