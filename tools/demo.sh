#!/bin/sh
# Revokes certificates of a throwaway CA through the real `step`, and shows what that does.
# Usage: tools/demo.sh PLUGIN STEP STEP-CA. Everything happens in a new temporary directory.
set -eu
umask 077

dir=$(mktemp -d "${TMPDIR:-/tmp}/step-revoke-demo.XXXXXX")
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
	printf '\nThe demo failed: %s\n' "$*" >&2
	[ ! -f step-ca.log ] || { echo 'The last lines of step-ca.log:'; tail -n 5 step-ca.log | cut -c 1-300; } >&2
	exit 1
}

heading() { printf '\n# %s\n' "$*"; }
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

serial_of() {
	step certificate inspect --format json "$1" | sed -n 's/^  "serial_number": "\([0-9]*\)",$/\1/p'
}

# refused NAME [KEY] shows that the CA does not renew NAME.crt, with the key of KEY, any more.
refused() {
	run "step ca renew --force $1.crt ${2:-$1}.key"
	[ "$status" -ne 0 ] || fail "$1.crt was renewed"
	grep -q 'lacked necessary authorization' output || fail "$1.crt was not renewed for another reason"
}

# listed NAME REASON checks the CRL that is in the file output.
listed() {
	reason=$(sed -n "/Serial Number: $(serial_of "$1.crt") /,/Reason Code:/{/Reason Code:/{n;s/^ *//p;};}" output)
	[ "$reason" = "$2" ] || fail "the CRL's reason for $1.crt is '$reason', not '$2'"
}

for name in $(env | sed -n 's/^\(STEP[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done
escape=$(printf '\033')
mkdir "$dir/bin"
cp "$1" "$dir/step-revoke-plugin"
ln -s "$2" "$dir/bin/step"
ln -s "$3" "$dir/bin/step-ca"
cd "$dir"
export PATH="$dir/bin:$PATH" HOME="$dir" STEPPATH="$dir/.step"
echo 'opens the keys of the CA' >ca-password
echo 'opens the key of the provisioner' >provisioner-password

echo '# A throwaway CA on loopback, and the plugin where step looks for it'
port=$((20000 + $$ % 10000))
tries=0
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
start_ca

heading 'Seven certificates, which the CA renews when it is asked to'
# shellcheck disable=SC2016
must 'for name in laptop web mail db host1 host2 host3; do
    step ca certificate $name.example.com $name.crt $name.key \
        --provisioner-password-file provisioner-password 2>&1 | grep Certificate
done'
must 'step ca renew laptop.crt laptop.key --out renewed.crt'

heading 'A laptop is stolen. Online, by serial number: a provisioner authorizes the revocation'
must "step certificate inspect --format json laptop.crt | grep serial_number"
laptop=$(serial_of laptop.crt)
must "step revoke --reason 'laptop stolen' --reasonCode keyCompromise \\
    --provisioner-password-file provisioner-password $laptop"
refused laptop

heading 'But a renewed certificate is another one, and the thief renews it'
must 'step ca renew renewed.crt laptop.key --out stolen.crt'

heading 'On the host of the CA, which goes on running: whatever has the key of the laptop'
must "step revoke --where key=laptop.crt --reason 'laptop stolen' --reasonCode keyCompromise --dry-run \\
    --provisioner-password-file provisioner-password"
[ "$(grep -c ' planned ' output)" = 2 ] || fail 'there are not two certificates left with the key'
must "step revoke --where key=laptop.crt --reason 'laptop stolen' --reasonCode keyCompromise --force --verify \\
    --provisioner-password-file provisioner-password"
refused renewed laptop
refused stolen laptop

heading 'Once more, as by a job that is run again: already revoked is a success'
must "step revoke --provisioner-password-file provisioner-password $laptop"

heading 'Online, over mTLS: the certificate authorizes its own revocation'
must 'step revoke --cert web.crt --key web.key --reasonCode superseded'
refused web

heading 'Online, by certificate: its key is not at hand'
must 'step revoke --cert mail.crt --reasonCode affiliationChanged --provisioner-password-file provisioner-password'
refused mail

heading 'Many at once: a plan to be reviewed, and then exactly that, with a journal'
must 'cat host1.crt host2.crt host3.crt | step revoke --from - --dry-run --reasonCode privilegeWithdrawn --format json \
    --provisioner-password-file provisioner-password >plan.json'
must 'step revoke --from plan.json --force --journal journal --verify --provisioner-password-file provisioner-password'
must 'step revoke --from plan.json --force --journal journal --provisioner-password-file provisioner-password'
[ "$(grep -c '"status":"revoked"' journal)" = 3 ] || fail 'the journal does not have three revocations'
refused host1
refused host2
refused host3

heading 'Offline: the CA is down, the plugin opens its database'
show 'kill %1 && wait'
stop_ca
must "step revoke --offline --reasonCode cessationOfOperation --ca-password-file ca-password --cert db.crt"
start_ca
refused db

heading 'What relying parties see, and why the CA refused'
must "step crl inspect --roots .step/certs/root_ca.crt --ca .step/certs/intermediate_ca.crt https://localhost:$port/1.0/crl |
    sed -n '/Revoked Certificates/,/Signature Algorithm/p'"
for name in laptop renewed stolen; do listed $name 'Key Compromise'; done
listed web Superseded
listed mail 'Affiliation Changed'
listed db 'Cessation Of Operation'
for name in host1 host2 host3; do listed $name 'Privilege Withdrawn'; done
[ "$(grep -c 'Serial Number:' output)" = 9 ] || fail 'the CRL does not list nine certificates'
must "grep -c 'authorizeRenew: certificate has been revoked' step-ca.log"
[ "$(cat output)" = 9 ] || fail 'the CA did not refuse nine renewals because of a revocation'
printf '\nAll nine are revoked: the CA renews none, and its CRL lists each with its reason.\n'
