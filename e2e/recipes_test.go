//go:build unix

package e2e

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v2"
)

var placeholder = regexp.MustCompile(`\$\{\{ (vars|secrets|inputs)\.(\w+) \}\}`)

func cmdJob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: job FILE")
	}
	type step struct {
		Run string
		Env map[string]string
	}
	var file struct {
		Jobs   map[string]struct{ Steps []step } // GitHub
		Revoke struct {                          // GitLab
			Variables map[string]string
			Script    []string
		}
	}
	ts.Check(yaml.Unmarshal([]byte(ts.ReadFile(args[0])), &file))
	steps := file.Jobs["revoke"].Steps
	if file.Revoke.Script != nil {
		steps = []step{{strings.Join(file.Revoke.Script, "\n"), file.Revoke.Variables}}
	}
	n := 0
	for _, s := range steps {
		if s.Run == "" {
			continue
		}
		var script strings.Builder
		for _, name := range slices.Sorted(maps.Keys(s.Env)) {
			value := placeholder.ReplaceAllStringFunc(s.Env[name], func(p string) string {
				match := placeholder.FindStringSubmatch(p)
				if match[1] == "secrets" {
					return strings.TrimSpace(ts.ReadFile(ts.Getenv(match[2])))
				}
				return ts.Getenv(match[2])
			})
			fmt.Fprintf(&script, "export %s=%s\n", name, shellQuote(value))
		}
		n++
		ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("step%d.sh", n)), []byte(script.String()+s.Run), 0o600))
	}
	if n == 0 {
		ts.Fatalf("the job has no steps")
	}
}

func cmdArchive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: archive")
	}
	const name, version = "step-revoke-plugin", "1.0.0"
	archive := fmt.Sprintf("%s_%s_linux_amd64.tar.gz", name, version)
	dir, err := released()
	ts.Check(err)
	bin := ts.MkAbs("bin")
	ts.Check(os.Mkdir(bin, 0o700))
	file := filepath.Join(bin, archive)
	ts.Check(ts.Exec("tar", "-czf", file, "-C", dir, name))
	ts.Setenv("sha256", fmt.Sprintf("%x", sha256.Sum256([]byte(ts.ReadFile(file)))))
	url := "https://github.com/step-plugins/step-revoke-plugin/releases/download/v" + version + "/" + archive
	download := fmt.Sprintf("#!/bin/sh\n[ \"$1 $2\" = \"$options %s\" ] && cp %s .\n", url, shellQuote(file))
	for program, options := range map[string]string{"curl": "-fsSLO", "wget": "-q"} {
		text := strings.Replace(download, "$options", options, 1)
		ts.Check(os.WriteFile(filepath.Join(bin, program), []byte(text), 0o700))
	}
	ts.Setenv("PATH", bin+":"+ts.Getenv("PATH"))
}

// cmdImage lays out what the Dockerfile makes.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: image")
	}
	text, err := os.ReadFile("../Dockerfile")
	ts.Check(err)
	dir, err := released() // that with the race detector is not static
	ts.Check(err)
	files := map[string]string{
		"$TARGETPLATFORM/step-revoke-plugin": filepath.Join(dir, "step-revoke-plugin"),
		"LICENSE":                            "../LICENSE",
		"extras/THIRD-PARTY-NOTICES":         "../LICENSE", // which a release makes
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#" || words[0] == "ARG" || line == "FROM scratch\n":
		case words[0] == "COPY":
			to := filepath.Join(ts.MkAbs("image"), words[len(words)-1])
			ts.Check(os.MkdirAll(to, 0o755))
			for _, from := range words[1 : len(words)-1] {
				ts.Check(copyFile(files[from], filepath.Join(to, filepath.Base(from))))
			}
		case words[0] == "USER":
			ts.Check(os.WriteFile(ts.MkAbs("user"), []byte(words[1]), 0o600))
		case words[0] == "ENTRYPOINT":
			var entry []string
			ts.Check(json.Unmarshal([]byte(strings.TrimPrefix(line, words[0])), &entry))
			ts.Check(os.WriteFile(ts.MkAbs("entrypoint"), []byte(strings.Join(entry, " ")), 0o600))
		default:
			ts.Fatalf("the Dockerfile has something new: %s", line)
		}
	}
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode())
}

// A job is what the tests use of a Job of Kubernetes.
type job struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				SecurityContext struct{ RunAsUser, RunAsGroup, FSGroup int }
				Containers      []struct {
					Image string
					Args  []string
					Env   []struct {
						Name      string
						ValueFrom struct{ SecretKeyRef struct{ Name, Key string } }
					}
					VolumeMounts []struct {
						Name, MountPath string
						ReadOnly        bool
					}
				}
				Volumes []volume
			}
		}
	}
}

type volume struct {
	Name   string
	Secret struct {
		SecretName  string
		DefaultMode int
		Items       []struct{ Key string }
	}
	ConfigMap             struct{ Name string }
	PersistentVolumeClaim struct{ ClaimName string }
}

// mode returns the mode of the files.
func (v volume) mode() int { return cmp.Or(v.Secret.DefaultMode, 0o644) }

// keys returns a pattern of a shell for the files.
func (v volume) keys() string {
	if len(v.Secret.Items) == 0 {
		return "*"
	}
	return v.Secret.Items[0].Key
}

// source returns the directory that stands for what a volume has in it.
func (v volume) source() string {
	switch {
	case v.Secret.SecretName != "":
		return filepath.Join("cluster", "Secret", v.Secret.SecretName)
	case v.ConfigMap.Name != "":
		return filepath.Join("cluster", "ConfigMap", v.ConfigMap.Name)
	}
	return filepath.Join("cluster", "PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
}

func cmdPod(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] pod MANIFEST")
	}
	run := exec.Command("go", "run", "-C", "../tools/kubernetes", ".")
	run.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	run.Stdin = strings.NewReader(ts.ReadFile(args[0]))
	var stderr strings.Builder
	run.Stderr = &stderr
	objects, err := run.Output()
	switch {
	case neg && err == nil:
		ts.Fatalf("%s is a good manifest", args[0])
	case neg:
		fmt.Fprint(ts.Stderr(), &stderr)
		return
	case err != nil:
		ts.Fatalf("%s: %v\n%s", args[0], err, &stderr)
	}
	for line := range strings.Lines(string(objects)) {
		var j job
		ts.Check(json.Unmarshal([]byte(line), &j))
		if j.Kind == "Job" {
			ts.Check(os.WriteFile(ts.MkAbs("pod.sh"), []byte(j.script(ts)), 0o600))
			return
		}
		ts.Check(os.MkdirAll(ts.MkAbs(filepath.Join("cluster", j.Kind, j.Metadata.Name)), 0o700))
	}
	ts.Fatalf("there is no Job")
}

// script returns a shell script that does what a node does for the Job's pod. Files of
// a volume are links into a directory ..data, and belong to its group.
func (j job) script(ts *testscript.TestScript) string {
	var text strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&text, format+"\n", a...) }
	pod := j.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		ts.Fatalf("the pod has %d containers", len(pod.Containers))
	}
	container := pod.Containers[0]
	say("set -e\nrm -rf root volumes\ncp -R image root")
	for _, v := range pod.Volumes {
		from := shellQuote(v.source())
		if v.PersistentVolumeClaim.ClaimName != "" {
			say("chgrp %d %s\nchmod 2770 %[2]s\nmkdir -p volumes\nln -s ../%[2]s volumes/%[3]s", pod.SecurityContext.FSGroup, from, v.Name)
			continue
		}
		say("mkdir -p volumes/%s/..data\ncp %s/%s volumes/%[1]s/..data", v.Name, from, v.keys())
		say("(cd volumes/%s; chgrp -R %d .; chmod %o ..data/*; ln -s ..data/* .)", v.Name, pod.SecurityContext.FSGroup, v.mode())
	}
	say("exec unshare -m sh -es %s <<'END'", shellQuote(fmt.Sprintf("%d:%d", pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup)))
	say("mount --bind root root")
	for _, m := range container.VolumeMounts {
		say("mkdir -p root%s\nmount --bind \"$(readlink -f volumes/%s)\" root%[1]s", m.MountPath, m.Name)
		if m.ReadOnly {
			say("mount -o remount,bind,ro root%s", m.MountPath)
		}
	}
	say("mount -o remount,bind,ro root")
	words := []string{"exec", "env", "-i"}
	for _, e := range container.Env {
		secret := ts.ReadFile(filepath.Join("cluster", "Secret", e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key))
		words = append(words, e.Name+"="+shellQuote(secret))
	}
	words = append(words, `"$(command -v chroot)"`, `--userspec="$1"`, fmt.Sprintf("--groups=%d", pod.SecurityContext.FSGroup), "root", "$(cat entrypoint)")
	for _, arg := range container.Args {
		words = append(words, shellQuote(arg))
	}
	say("%s\nEND", strings.Join(words, " "))
	return text.String()
}

// shellQuote makes a value one word of a shell script.
func shellQuote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
