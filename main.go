// Step-revoke-plugin revokes X.509 certificates issued by a step-ca
// certificate authority. It runs as "step revoke" and on its own.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/smallstep/cli-utils/step"
	"github.com/urfave/cli"

	"github.com/step-plugins/step-revoke-plugin/internal/batch"
	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// version is set by the linker in releases and by make.
var version = ""

// lastMoment is how long after a signal the process exits, whatever is still
// running: a little after the grace of what is in flight.
const lastMoment = batch.Grace + 500*time.Millisecond

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
		time.AfterFunc(lastMoment, func() {
			ui.Farewell(problem.ErrInterrupted)
			os.Exit(problem.Interrupted)
		})
	})
	signal.Ignore(syscall.SIGPIPE) // a reader that has gone is an error, not the end
	defer ui.Init(ctx)()

	err := problem.Default(runApp(ctx, args), problem.Usage)
	if err != nil {
		for _, part := range problem.Parts(err) {
			if !errors.Is(part, errReported) {
				ui.Error(part)
			}
		}
	}
	return problem.Code(err)
}

// runApp runs the app, which has one command: urfave/cli wires environment
// variables and defaults.json for commands only.
func runApp(ctx context.Context, args []string) (err error) {
	defer problem.Recover(&err)
	args, on, err := flagsFirst(args)
	if err != nil {
		return err
	}
	page, err := pageFor(args, on)
	if err != nil {
		return err
	}
	if page != "" {
		return printOut(page)
	}
	command := revokeCommand(ctx, on)
	os.Unsetenv(step.IgnoreEnvVar) // flags that name it as their variable have none
	step.SetEnvVar(&command)
	app := cli.NewApp()
	app.Name, app.HelpName = "step", "step"
	app.HideVersion = true
	app.Commands = []cli.Command{command}
	app.ExitErrHandler = func(*cli.Context, error) {}
	return app.Run(append([]string{app.Name, command.Name}, args...))
}

func printOut(text string) error {
	if err := ui.Print(text); err != nil {
		return problem.WithCode(problem.Failed, "writing to standard output: %w", err)
	}
	return nil
}

// revokeCommand is the app's one command. on are the flags that stand on the
// command line itself.
func revokeCommand(ctx context.Context, on given) cli.Command {
	return cli.Command{
		Name:           "revoke",
		Flags:          cliFlags(),
		HideHelp:       true, // the flag is in our own table
		SkipArgReorder: true, // flagsFirst has done it
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return flagError(err) },
		Before:         func(*cli.Context) error { return nil }, // keeps step.SetEnvVar from adding its own
		Action: func(c *cli.Context) error {
			o, err := configure(ctx, c, on)
			if err != nil {
				return err
			}
			return revoke(ctx, o)
		},
	}
}

// configure reads step's environment and then the options.
func configure(ctx context.Context, c *cli.Context, on given) (*options, error) {
	if err := initStep(); err != nil {
		return nil, err
	}
	if err := useContext(ctx, c.String("context")); err != nil {
		return nil, err
	}
	ui.Debug("step-revoke-plugin %s, step path %s", programVersion(), step.Path())
	if err := applyDefaults(c); err != nil {
		return nil, err
	}
	if isBare(c) {
		for line := range strings.SplitSeq(usageText, "\n") {
			ui.Say("%s", line)
		}
		return nil, problem.WithCode(problem.Usage, "nothing to revoke: %w", errReported)
	}
	return readOptions(ctx, c, on)
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
