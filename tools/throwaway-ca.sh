# shellcheck shell=sh
# What the scripts have in common that source this file: a throwaway CA in a new
# temporary directory, commands that are shown and run, and what is cleaned up.
set -eu
umask 077

dir=$(mktemp -d "${TMPDIR:-/tmp}/step-revoke.XXXXXX")
ca= # the process ID of step-ca while it runs

stop_ca() {
	kill "$ca" 2>/dev/null || true
	wait "$ca" || true
	ca=
}
cleanup() {
	[ -z "$ca" ] || stop_ca
	cd /
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
	printf '\n%s failed: %s\n' "$0" "$*" >&2
	[ ! -f step-ca.log ] || { echo 'The last lines of step-ca.log:'; tail -n 5 step-ca.log | cut -c 1-300; } >&2
	exit 1
}

show() { printf '\n$ %s\n' "$*"; }

# run COMMAND shows a command line, runs it, and shows what it printed, without colours.
run() {
	show "$1"
	status=0
	eval "$1" >output 2>&1 </dev/null || status=$?
	sed "s/$escape\[[0-9;]*m//g" output
}
must() {
	run "$1"
	[ "$status" -eq 0 ] || fail "exit status $status"
}

# create_ca PORT PLUGIN STEP STEP-CA makes a CA on that port or one of the next, and goes
# to its directory, which is the home of all that is run then.
create_ca() {
	for name in $(env | sed -n 's/^\(STEP[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done
	escape=$(printf '\033')
	mkdir "$dir/bin"
	cp "$2" "$dir/step-revoke-plugin"
	ln -s "$3" "$dir/bin/step"
	ln -s "$4" "$dir/bin/step-ca"
	cd "$dir"
	export PATH="$dir/bin:$PATH" HOME="$dir" STEPPATH="$dir/.step"
	echo 'opens the keys of the CA' >ca-password
	echo 'opens the key of the provisioner' >provisioner-password

	port=$1 tries=0
	until step certificate inspect --insecure "https://127.0.0.1:$port" 2>&1 | grep -q refused; do
		port=$((port + 1)) tries=$((tries + 1))
		[ "$tries" -lt 20 ] || fail 'there is no free port'
	done
	must "step ca init --name Demo --dns localhost --address 127.0.0.1:$port --deployment-type standalone \\
    --password-file ca-password --provisioner admin --provisioner-password-file provisioner-password 2>init.log"
	crl='"crl": {"enabled": true, "generateOnRevoke": true},'
	must "sed -i.orig 's/\"authority\": {/$crl &/' .step/config/ca.json"
	# shellcheck disable=SC2016
	must 'mkdir -p "$(step path --base)/plugins" && cp step-revoke-plugin "$(step path --base)/plugins/"'
}

# start_ca starts step-ca and returns once it answers.
start_ca() {
	show 'step-ca --password-file ca-password .step/config/ca.json >>step-ca.log 2>&1 &'
	step-ca --password-file ca-password .step/config/ca.json >>step-ca.log 2>&1 </dev/null &
	ca=$!
	tries=0
	until step ca health >/dev/null 2>&1; do
		kill -0 "$ca" 2>/dev/null || fail 'step-ca has ended'
		tries=$((tries + 1))
		[ "$tries" -lt 300 ] || fail 'step-ca does not answer'
		sleep 0.1
	done
}
