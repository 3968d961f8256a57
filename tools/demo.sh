#!/bin/sh
# Revokes certificates of a throwaway CA through the real `step`, and shows what that does.
# Usage: tools/demo.sh PLUGIN STEP STEP-CA. Everything happens in a new temporary directory.
# shellcheck source=tools/throwaway-ca.sh
. "$(dirname "$0")/throwaway-ca.sh"

heading() { printf '\n# %s\n' "$*"; }

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

echo '# A throwaway CA on loopback, and the plugin where step looks for it'
create_ca $((20000 + $$ % 10000)) "$1" "$2" "$3"
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
