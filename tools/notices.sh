#!/usr/bin/env bash
# notices.sh prints the licenses and notices of all that is linked into the
# program on any released system: Go's, and those in each module's directory of the
# module cache and in the directories down to the packages that are used. It fails
# if a module has no license. What it prints depends on go.sum and on the version
# of Go alone; nothing is fetched that building does not fetch.
set -euo pipefail
shopt -s nullglob nocaseglob
cd "$(dirname "$0")/.."
export LC_ALL=C CGO_ENABLED=0

platforms=(linux/amd64 linux/arm64 linux/arm darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 freebsd/amd64 freebsd/arm64)
go=$(go env GOVERSION)
used=$(for platform in "${platforms[@]}"; do
	GOOS=${platform%/*} GOARCH=${platform#*/} go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{else}}Go@'"$go"' {{.Root}} {{.Dir}}{{end}}' .
done | sort -u)

declare -A owners=() read=() licensed=()
texts=()
while read -r owner root dir; do
	# The directory of the package, and those above it in its module.
	while [[ $dir/ == "$root"/* ]]; do
		for file in "$dir"/{licen[cs]e,copying,copyright,notice,patents,authors}*; do
			[[ -f $file && ${file,,} != *.go && -z ${read[$file]-} ]] || continue
			read[$file]=yes
			text=$(tr -d '\r' <"$file")
			[[ ${owners[$text]-} ]] || texts+=("$text")
			owners[$text]+="$owner ${file#"$root"/}"$'\n'
			[[ ${file,,} == */@(licen[cs]e|copying)* ]] && licensed[$owner]=yes
		done
		dir=${dir%/*}
	done
done <<<"$used"
# shellcheck disable=SC2013 # they have no blanks
for owner in $(cut -d' ' -f1 <<<"$used" | sort -u); do
	[[ ${licensed[$owner]-} ]] || { echo "$owner has no license" >&2; exit 1; }
done

cat <<'TEXT'
What is linked into step-revoke-plugin, and under which terms. Before each text
stand the modules that it comes with, with their versions and its name there.
'go mod download MODULE@VERSION' fetches the source of a module.
TEXT
for text in "${texts[@]}"; do
	printf '\n%079d\n%s\n%s\n' 0 "${owners[$text]}" "$text"
done | sed 's/^0\{79\}$/===============================================================================/'
