#!/usr/bin/env bash
# extras.sh VERSION makes what a release has besides the program, in extras/:
# completions, the man page, and the licenses of what is linked into the program.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf extras
mkdir extras
program=$(mktemp)
trap 'rm -f "$program"' EXIT
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$1" -o "$program" .
"$program" completion bash >extras/step-revoke-plugin.bash
"$program" completion zsh >extras/_step-revoke-plugin
"$program" completion fish >extras/step-revoke-plugin.fish
"$program" man | gzip -9n >extras/step-revoke-plugin.1.gz
tools/notices.sh >extras/THIRD-PARTY-NOTICES
