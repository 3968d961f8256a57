#!/usr/bin/env bash
# fuzz.sh TIME: run each fuzz target of the module for some time, 10s for instance, in at
# most 512 MB of memory. Each takes two workers; what they find is kept in Go's build
# cache for the next time, and an input that fails in testdata/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
module=$(go list -m) cache=$(go env GOCACHE)/fuzz binaries=$(mktemp -d)
trap 'rm -rf "$binaries"' EXIT
failed=0
while IFS= read -r dir; do
	binary=$binaries/$(basename "$dir").test
	go test -c -fuzz=Fuzz -o "$binary" "$dir"
	for target in $("$binary" -test.list '^Fuzz'); do
		# Interesting inputs are not worth the time that making them smaller takes.
		run=(-test.run='^$' -test.fuzz="^$target\$" -test.fuzztime="$1" -test.fuzzminimizetime=10x -test.parallel=2 -test.fuzzcachedir="$cache/$module/${dir#./}")
		out=$(cd "$dir" && ulimit -d $((512 << 10)) && "$binary" "${run[@]}" 2>&1) && ok=true || ok=false
		printf '%-22s %-24s %s\n' "$dir" "$target" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
		# The time may be over while a worker is still busy, which package testing takes for a failure.
		if ! $ok && { grep -q 'Failing input' <<<"$out" || ! grep -q '^ *context deadline exceeded$' <<<"$out"; }; then
			printf '%s\n' "$out"
			failed=1
		fi
	done
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u)
exit $failed
