package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
)

// completions are the shells with their completion scripts. Each script serves
// step-revoke-plugin and, read after step's own, step revoke: step asks no plugin
// what could come next (cmd/root.go of smallstep/cli), so its completion is wrapped.
var completions = map[string]func() string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}

// completion returns the script for a shell.
func completion(shells ...string) (string, error) {
	if len(shells) == 1 && completions[shells[0]] != nil {
		return completions[shells[0]](), nil
	}
	return "", problem.New("there is no completion for the shell %.64q", strings.Join(shells, " ")).
		Hint("shells are bash, zsh and fish, as in 'step-revoke-plugin completion bash'")
}

// summary is the beginning of an explanation, for a list of choices.
func summary(usage string) string {
	usage = strings.ReplaceAll(usage, "\n", " ")
	for _, end := range []string{". ", "; ", ": "} {
		usage, _, _ = strings.Cut(usage, end)
	}
	return usage
}

// choices are the values of a kind, each with a summary: all there are, or the
// beginnings of all there are. A file has none.
func (k kind) choices() (words, summaries []string) {
	switch k {
	case reasonCode:
		for _, r := range reasons {
			words, summaries = append(words, r.name), append(summaries, summary(r.when))
		}
	case formatName:
		return []string{"text", "json"}, []string{"for a person", "an object for each certificate, a line each"}
	case whereTerm:
		for _, p := range target.Properties {
			words, summaries = append(words, p.Name+"="), append(summaries, summary(p.Usage))
		}
	}
	return words, summaries
}

// dashedNames are all names, as they are typed, of the flags that are wanted.
func dashedNames(wanted func(*flag) bool) (names []string) {
	for _, f := range allFlags() {
		if wanted(f) {
			for _, name := range f.names {
				names = append(names, dashed(name))
			}
		}
	}
	return names
}

// withFiles are the properties of --where that name a file.
func withFiles() (names []string) {
	for _, p := range target.Properties {
		if p.Value == string(fileName) {
			names = append(names, p.Name)
		}
	}
	return names
}

const bashFrame = `# bash completion of step-revoke-plugin and, after that of step, of step revoke

_step_revoke_plugin() {
	local cur=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} words=
	if [[ $cur == = ]]; then
		cur=
	elif [[ $flag == = ]]; then
		flag=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	COMPREPLY=()
	case $flag in
	%s) return ;; # a file, which bash completes
%s	%s) ;;
	*) [[ $cur != -* ]] || words='%s' ;;
	esac
	compopt +o default 2>/dev/null
	[[ $flag != --where ]] || compopt -o nospace 2>/dev/null
	# shellcheck disable=SC2207 # the words have no blanks, and bash 3.2 has no mapfile
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}

_step_revoke() {
	if ((COMP_CWORD > 1)) && [[ ${COMP_WORDS[1]} == revoke ]]; then
		_step_revoke_plugin
	elif declare -F _step_cli_bash_autocomplete >/dev/null; then
		_step_cli_bash_autocomplete
	fi
	if ((COMP_CWORD == 1)) && [[ revoke == "${COMP_WORDS[1]}"* ]]; then
		COMPREPLY+=(revoke)
	fi
}

complete -o default -F _step_revoke_plugin step-revoke-plugin
complete -o bashdefault -o default -F _step_revoke step
`

func bashScript() string {
	takes := func(k kind) []string { return dashedNames(func(f *flag) bool { return f.value == k }) }
	var cases strings.Builder
	for _, k := range []kind{reasonCode, formatName, whereTerm} {
		words, _ := k.choices()
		fmt.Fprintf(&cases, "\t%s) words='%s' ;;\n", strings.Join(takes(k), " | "), strings.Join(words, " "))
	}
	unknown := dashedNames(func(f *flag) bool {
		words, _ := f.value.choices()
		return f.value != noValue && f.value != fileName && words == nil
	})
	return fmt.Sprintf(bashFrame, strings.Join(append(takes(fileName), withFiles()...), " | "), cases.String(),
		strings.Join(unknown, " | "), strings.Join(dashedNames(func(*flag) bool { return true }), " "))
}

const zshFrame = `#compdef step-revoke-plugin
# zsh completion of step-revoke-plugin and, after that of step, of step revoke

_step_revoke_code() {
	local -a words=(%s)
	_describe 'reason' words
}

_step_revoke_format() {
	local -a words=(%s)
	_describe 'format' words
}

_step_revoke_term() {
	local -a words=(%s)
	if compset -P '(%s)='; then
		_files
	elif ! compset -P '*='; then
		_describe 'property' words -S ''
	fi
}

_step_revoke_plugin() {
	_arguments -S \
%s		'*:serial number:()'
}

_step_revoke() {
	if ((CURRENT > 2)) && [[ $words[2] == revoke ]]; then
		shift words
		((CURRENT--))
		_step_revoke_plugin
		return
	fi
	((CURRENT > 2)) || compadd revoke
	((! $+functions[_step])) || _step "$@"
}

compdef _step_revoke_plugin step-revoke-plugin
compdef _step_revoke step
[[ $funcstack[1] != _step-revoke-plugin ]] || _step_revoke_plugin "$@"
`

func zshScript() string {
	var lists []any
	for _, k := range []kind{reasonCode, formatName, whereTerm} {
		words, summaries := k.choices()
		for i := range words {
			words[i] = shellQuote(words[i] + ":" + summaries[i])
		}
		lists = append(lists, strings.Join(words, " "))
	}
	actions := map[kind]string{fileName: "_files", reasonCode: "_step_revoke_code", formatName: "_step_revoke_format", whereTerm: "_step_revoke_term"}
	var specs strings.Builder
	for _, f := range allFlags() {
		names := dashedNames(func(other *flag) bool { return other == f })
		for _, name := range names {
			spec := "(" + strings.Join(names, " ") + ")" + name
			if f.many {
				spec = "*" + name
			}
			if f.value != noValue {
				spec += "="
			}
			spec += "[" + strings.NewReplacer("[", `\[`, "]", `\]`).Replace(summary(f.usage)) + "]"
			if f.value != noValue {
				spec += ":" + string(f.value) + ":" + cmp.Or(actions[f.value], "()")
			}
			fmt.Fprintf(&specs, "\t\t%s \\\n", shellQuote(spec))
		}
	}
	return fmt.Sprintf(zshFrame, append(lists, strings.Join(withFiles(), "|"), specs.String())...)
}

const fishFrame = `# fish completion of step-revoke-plugin and of step revoke

function __step_revoke
    set -l words (commandline -opc)
    string match -q '*step-revoke-plugin' -- $words[1]; or test "$words[2]" = revoke
end

function __step_revoke_term
    set -l word (commandline -ct | string replace -r '^--where=' '')
    if string match -qr '^(%s)=' -- $word
        set -l parts (string split -m 1 = -- $word)
        string replace -r '^' "$parts[1]=" -- (__fish_complete_path $parts[2])
    else
        printf '%%s\t%%s\n' %s
    end
end

complete -c step -n 'test (count (commandline -opc)) -eq 1' -f -a revoke -d 'Revoke certificates'
complete -c step-revoke-plugin -c step -n __step_revoke -f
`

func fishScript() string {
	var b strings.Builder
	terms, about := whereTerm.choices()
	for i := range terms {
		terms[i] = fishQuote(terms[i]) + " " + fishQuote(about[i])
	}
	fmt.Fprintf(&b, fishFrame, strings.Join(withFiles(), "|"), strings.Join(terms, " "))
	for _, f := range allFlags() {
		b.WriteString("complete -c step-revoke-plugin -c step -n __step_revoke")
		for _, name := range f.names {
			fmt.Fprintf(&b, " -%c %s", "sl"[min(len(name)-1, 1)], name)
		}
		words, summaries := f.value.choices()
		switch {
		case f.value == fileName:
			b.WriteString(" -r -F")
		case f.value == whereTerm:
			b.WriteString(" -x -a '(__step_revoke_term)'")
		case f.value != noValue:
			for i := range words {
				words[i] += `\t` + fishQuote(summaries[i])
			}
			b.WriteString(" -x -a " + fishQuote(strings.Join(words, " ")))
		}
		b.WriteString(" -d " + fishQuote(summary(f.usage)) + "\n")
	}
	return b.String()
}

// fishQuote writes a word so that fish reads it as it is.
func fishQuote(word string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(word) + "'"
}
