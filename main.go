// Step-revoke-plugin revokes X.509 certificates issued by a step-ca
// certificate authority. It runs as "step revoke" and on its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/smallstep/certificates/ca"
	"github.com/smallstep/cli-utils/step"
	"github.com/smallstep/cli-utils/ui"
	"github.com/urfave/cli"
)

// version is set by the linker in releases and by make.
var version = ""

// After a signal, what is in flight may take grace to finish. What has not ended
// a little later, by itself, is ended.
const (
	grace    = 4 * time.Second
	graceEnd = grace + 500*time.Millisecond
)

func main() { os.Exit(run(os.Args[1:])) }

// run runs the program and returns its exit code.
func run(args []string) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup has it ignored
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the program at once
		time.AfterFunc(graceEnd, func() {
			fmt.Fprintln(&realStderr, bottom.leave()+"error:", errInterrupted) // os.Stderr may be another one just now
			os.Exit(exitInterrupted)
		})
	})
	signal.Ignore(syscall.SIGPIPE) // whoever stops reading is an error, not the end
	log.SetFlags(0)
	log.SetOutput(debugLog{}) // of libraries
	ui.Init()
	defer ui.Reset()

	err := runApp(ctx, args)
	if err != nil && !errors.Is(err, errReported) {
		sayProblem(err)
	}
	return exitCode(err)
}

// runApp runs the app, which has one command: urfave/cli wires environment
// variables and defaults.json for commands only.
func runApp(ctx context.Context, args []string) error {
	ca.UserAgent = "step-revoke-plugin/" + programVersion()
	ca.DisableIdentity = true // step's own identity would displace --cert and --key

	args, given, err := flagsFirst(allFlags(), args)
	switch {
	case err != nil:
		return err
	case given["help"]:
		return printOut(helpText())
	case given["version"]:
		return printOut(fmt.Sprintf("step-revoke-plugin/%s (%s/%s)\n", programVersion(), runtime.GOOS, runtime.GOARCH))
	}
	command := revokeCommand(ctx, given)
	os.Unsetenv(step.IgnoreEnvVar) // flags that name it as their variable have none
	step.SetEnvVar(&command)
	app := cli.NewApp()
	app.Name, app.HelpName = "step", "step"
	app.HideVersion = true
	app.Commands = []cli.Command{command}
	app.ExitErrHandler = func(*cli.Context, error) {}
	return app.Run(append([]string{app.Name, command.Name}, args...))
}

// initStep reads step's environment: its directory, the contexts, and the
// defaults of the context in force. Without a home directory there is none, and
// nothing is read: step's paths would be relative to the working directory,
// and what lies there is not to be trusted.
func initStep() error {
	if !filepath.IsAbs(homeDir()) {
		nowhere := os.Getenv(step.PathEnv)
		if !filepath.IsAbs(nowhere) {
			nowhere = filepath.Join(filepath.VolumeName(os.TempDir())+string(filepath.Separator), "nonexistent")
			os.Setenv(step.PathEnv, nowhere)
		}
		os.Setenv(step.HomeEnv, nowhere)
	}
	if err := step.Init(); err != nil {
		return usagef("reading step's environment in %s: %w", step.BasePath(), err).
			hint("%s names another directory for it, which may be empty", step.PathEnv)
	}
	return nil
}

// homeDir is the home directory as step.Init sees it.
func homeDir() string {
	if home := os.Getenv(step.HomeEnv); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// programVersion is the version of a release, or that of the module for a
// program that go install has built.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0000000-dev"
}
