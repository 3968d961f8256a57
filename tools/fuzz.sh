#!/usr/bin/env bash
# fuzz.sh TIME: run each fuzz target of the module for some time, 10s for instance, in at
# most 512 MB of memory, as many at once as there are processors. What they learn is kept
# in Go's build cache for the next time, and an input that fails in testdata/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
binaries=$(mktemp -d)
trap 'rm -rf "$binaries"' EXIT
learned=$(go env GOCACHE)/fuzz/$(go list -m)
export learned time=$1

fuzz() { # DIRECTORY BINARY TARGET
	# Interesting inputs are not worth the time that making them smaller takes.
	local run=(-test.run='^$' -test.fuzz="^$3\$" -test.fuzztime="$time" -test.fuzzminimizetime=10x -test.parallel=1 -test.fuzzcachedir="$learned/$1") out ok=true
	out=$(cd "$1" && ulimit -d $((512 << 10)) && "$2" "${run[@]}" 2>&1) || ok=false
	printf '%-22s %-22s %s\n' "$1" "$3" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
	# The time may be over while the worker is busy, which package testing takes for a failure.
	$ok || { grep -q '^ *context deadline exceeded$' <<<"$out" && ! grep -q 'Failing input' <<<"$out"; } || { printf '%s\n' "$out"; false; }
}
export -f fuzz

grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while IFS= read -r dir; do
	binary=$binaries/$(basename "$PWD/$dir").test
	go test -c -fuzz=Fuzz -o "$binary" "$dir"
	(cd "$dir" && "$binary" -test.list '^Fuzz') | sed "s|^|$dir $binary |"
done | xargs -P "$(getconf _NPROCESSORS_ONLN)" -L1 bash -c 'fuzz "$@"' fuzz
