//go:build unix

package authorize

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// caseToRun is the environment variable that makes the test binary ask for
// credentials instead: each test needs a terminal, or none, and a process of its
// own.
const caseToRun = "AUTHORIZE_TEST_CASE"

// A question is what such a process is to get hold of credentials for.
type question struct {
	Config Config
	JWKs   []*provisioner.JWK
	ACME   bool // the CA has an ACME provisioner too
}

func TestMain(m *testing.M) {
	text := os.Getenv(caseToRun)
	if text == "" {
		os.Exit(m.Run())
	}
	var q question
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		panic(err)
	}
	var ca fakeCA
	for _, p := range q.JWKs {
		ca = append(ca, p)
	}
	if q.ACME {
		ca = append(ca, &provisioner.ACME{Type: "ACME", Name: "web"})
	}
	fmt.Print(ask(q.Config, ca))
}

// ask tells what comes of getting hold of credentials.
func ask(cfg Config, ca CA) string {
	c, err := Read(context.Background(), cfg, &target.List{})
	if err != nil {
		return fmt.Sprintf("early: %d, %v", problem.Code(problem.Default(err, problem.Usage)), err)
	}
	proof, err := c.Proof(context.Background(), ca)
	if err != nil {
		return fmt.Sprintf("%d, %v %q", problem.Code(problem.Default(err, problem.Failed)), err, problem.Hints(err))
	}
	return proof.String()
}

// TestAsked shows what is asked for, with and without a terminal, and in which
// order: the password comes last, when it is known whose it is.
func TestAsked(t *testing.T) {
	t.Parallel()
	key := newKey(t, "EC", "P-256", "ES256")
	admin, ops := newJWK(t, "admin", key, "right"), newJWK(t, "ops", newKey(t, "EC", "P-256", "ES256"), "other")
	encrypted := in(t)("key.jwk", []byte(admin.EncryptedKey))
	const (
		password  = "Please enter the password to decrypt the key of the provisioner \"admin\": "
		wrong     = "⚠ the password is wrong|"
		noFlag    = "--provisioner-password-file is missing, and there is no terminal to ask for it"
		noneFits  = "the CA has no JWK provisioner to authorize the revocation"
		wrongOnes = wrong + wrong + wrong
	)
	chosen := "✔ Provisioner: admin (JWK) [kid: " + key.KeyID + "]|"
	for _, tt := range []struct {
		name     string
		q        question
		question string   // with a terminal
		typed    []string // where it is nil there is no terminal
		want     string
	}{
		{name: "nobody to ask for a password", q: question{JWKs: []*provisioner.JWK{admin}, ACME: true}, want: chosen + "2, " + noFlag + " []"},
		{name: "ACME only", q: question{ACME: true}, want: "1, " + noneFits},
		{name: "ACME by name", q: question{Config: Config{Provisioner: "web"}, JWKs: []*provisioner.JWK{admin}, ACME: true}, want: `1, the provisioner "web" is of type ACME`},
		{name: "nobody to ask which one", q: question{JWKs: []*provisioner.JWK{admin, ops}},
			want: "2, --provisioner is missing, and there is no terminal to ask for it [\"suitable provisioners: admin (JWK) [kid: " + key.KeyID + "], ops (JWK)"},
		{name: "nobody to ask for the password of a file", q: question{Config: Config{KeyFile: encrypted}}, want: "early: 2, " + noFlag},
		{name: "third try", q: question{JWKs: []*provisioner.JWK{admin}}, question: password, typed: []string{"guess", "", "right"},
			want: chosen + wrong + wrong + "provisioner admin (JWK)"},
		{name: "all wrong", q: question{JWKs: []*provisioner.JWK{admin}}, question: password, typed: []string{"guess", "guess", "guess"},
			want: chosen + wrongOnes + `2, the password does not decrypt the key of the provisioner "admin" []`},
		{name: "all wrong for a file", q: question{Config: Config{KeyFile: encrypted}},
			question: "Please enter the password to decrypt the key in " + encrypted + ": ", typed: []string{"guess", "guess", "guess"},
			want: wrongOnes + "early: 2, the password does not decrypt the key in " + encrypted},
		{name: "Ctrl-C", q: question{JWKs: []*provisioner.JWK{admin}}, question: password, typed: []string{"\x03"}, want: chosen + "130, interrupted []"},
		{name: "Ctrl-D", q: question{JWKs: []*provisioner.JWK{admin}}, question: password, typed: []string{"\x04"},
			want: chosen + "2, --provisioner-password-file is missing: no answer was given []"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(tt.q)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), caseToRun+"="+string(text), "NO_COLOR=1")
			var out string
			if tt.typed == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
				b, _ := cmd.CombinedOutput()
				out = string(b)
			} else {
				out = typeAnswers(t, cmd, tt.question, tt.typed)
			}
			want := strings.Join(strings.Fields(strings.ReplaceAll(tt.want, "|", " ")), " ")
			if got := strings.Join(strings.Fields(out), " "); !strings.HasPrefix(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// typeAnswers runs a command at a terminal, answers its questions, and returns
// all else that it prints.
func typeAnswers(t *testing.T, cmd *exec.Cmd, question string, answers []string) string {
	t.Helper()
	keyboard, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 400}) // wide enough for any question
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	var shown string
	for _, answer := range answers {
		for b := make([]byte, 1); !strings.HasSuffix(shown, question); shown += string(b) {
			if _, err := keyboard.Read(b); err != nil {
				t.Fatalf("no %q in %q", question, shown)
			}
		}
		shown = strings.TrimSuffix(shown, question)
		if _, err := io.WriteString(keyboard, answer+"\r"); err != nil {
			t.Fatal(err)
		}
	}
	rest, _ := io.ReadAll(keyboard)
	_ = cmd.Wait()
	return shown + string(rest)
}
