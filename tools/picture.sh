#!/usr/bin/env bash
# Revokes the certificates of a stolen laptop at a terminal, with the real `step` and a
# throwaway CA, and makes docs/session.svg of what is on the screen.
# Usage: tools/picture.sh [--check] PLUGIN STEP STEP-CA. With --check the file stays as it
# is, and must have the same text, but for serial numbers, times and the like.
# shellcheck source=tools/throwaway-ca.sh
. "$(dirname "$0")/throwaway-ca.sh"

check=
if [[ ${1-} == --check ]]; then
	check=yes
	shift
fi
here=$HOME root=$(cd "$(dirname "$0")/.." && pwd)
picture=$root/docs/session.svg

tmux() { command tmux -u -S "$dir/tmux" -f /dev/null "$@"; }
trap 'tmux kill-server 2>/dev/null || true; cleanup' EXIT

# on REGEXP waits until the end of the screen matches.
on() {
	local tries=0
	until [[ $(tmux capture-pane -p) =~ $1$ ]]; do
		tries=$((tries + 1))
		((tries < 1000)) || fail "there is no '$1' at the end of the screen:"$'\n'"$(tmux capture-pane -p)"
		sleep 0.02
	done
}
# enter TEXT types a line.
enter() {
	tmux send-keys -l -- "$1"
	tmux send-keys Enter
}

# words FILE lists the words in a picture. What each run has anew gets a name.
words() {
	sed -n 's|^<text [^>]*>\(.*\)</text>$|\1|p' "$1" | tr -s ' ' '\n' | sed -E '
		s/^[0-9]{30,}$/SERIAL/
		s/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z/TIME/
		s/:[0-9]+$/:PORT/
		s/^[A-Za-z0-9_-]{43}]$/KEY-ID]/
		s/^[0-9.]+m?s,$/DURATION,/
		s|^[0-9.,]+/s\.$|RATE/s.|'
}

create_ca 8443 "$@"
# What the CA signs says where its CRL is.
must "sed -i 's|\"generateOnRevoke\": true|&, \"idpURL\": \"http://crl.corp.example/ca.crl\"|' .step/config/ca.json"
cat >host.tpl <<'END'
	{
		"subject": {{ toJson .Subject }}, "sans": {{ toJson .SANs }},
		"keyUsage": ["digitalSignature"], "extKeyUsage": ["serverAuth", "clientAuth"],
		"crlDistributionPoints": ["http://crl.corp.example/ca.crl"]
	}
END
must 'step ca provisioner update admin --x509-template host.tpl --ca-config .step/config/ca.json'
start_ca
for name in laptop42 web db; do
	must "step ca certificate $name.corp.example $name.crt $name.key --provisioner-password-file provisioner-password"
done
must 'step ca renew laptop42.crt laptop42.key --out renewed.crt'

# Wide enough that tmux breaks no line. Bold is what somebody types.
cat >prompts <<'END'
PS0='\e[0m' PS1='\[\e[1;36m\]$\[\e[39m\] ' PS2='\[\e[1;36m\]>\[\e[39m\] '
END
tmux new-session -d -x 200 -y 50 'bash --noprofile --rcfile prompts'
on '\$'
enter $'step revoke --where san=laptop42.corp.example --reason "laptop stolen" \\'
on $'\n>'
enter '--reasonCode keyCompromise --verify'
on 'Revoke 2 certificates\? \[y/n\]:'
enter y
on 'Please enter the password [^:]*:'
tmux load-buffer provisioner-password \; paste-buffer
on $'\n2 certificates: 2 revoked[^\n]*\n\\$'
enter 'step ca renew laptop42.crt laptop42.key  # the thief tries'
on $'lacked necessary authorization.*\n\\$'
tmux capture-pane -e -p >screen
! grep -Ff provisioner-password screen || fail 'the password is on the screen'

# The last message is cut after its first sentence.
sed -i '/The request lacked/{s/\. .*/. …/;q}' screen
HOME=$here go run -C "$root" ./e2e/picture 'A stolen laptop: its certificates are revoked' \
	"A terminal on the CA's host. step revoke chooses the two certificates of laptop42.corp.example from the CA's database, shows them, asks, revokes them and verifies that in the CA's CRL. Then the CA refuses to renew the stolen certificate." <screen >session.svg
words session.svg >fresh
(($(grep -c SERIAL fresh) == 6)) || fail 'the picture does not name two certificates three times'
if [[ $check ]]; then
	words "$picture" | diff -u --label docs/session.svg --label 'this run' - fresh ||
		fail 'docs/session.svg shows something else: run make picture'
else
	cp session.svg "$picture"
	chmod 644 "$picture"
fi
