#!/usr/bin/env bash
# snapshot.sh GORELEASER makes the release of the last commit for linux/amd64 twice, in
# two directories, and checks that both have the same bytes, that the packages install
# what the README promises, and that the licenses of all that is linked are there.
set -euo pipefail
cd "$(dirname "$0")/.."

goreleaser=$1
"$goreleaser" check .goreleaser.yml
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
sed 's/^    targets: .*/    targets: [linux_amd64]/' .goreleaser.yml >"$top/config.yml"
git clone -q . "$top/one"
git clone -q "$top/one" "$top/two/deeper"
for copy in one two/deeper; do
	# Containers, SBOMs and signatures take programs that are on the runners of GitHub, and
	# Scoop an archive for Windows.
	(cd "$top/$copy" && TZ=Etc/GMT+${#copy} nice "$goreleaser" release --snapshot --config "$top/config.yml" --skip docker,sbom,sign,scoop)
done
sums() { (cd "$1/dist" && find . -type f \( -name '*.tar.gz' -o -name '*.deb' -o -name '*.rpm' -o -name checksums.txt -o -name step-revoke-plugin \) -exec sha256sum {} + | sort); }
sums "$top/one"
diff <(sums "$top/one") <(sums "$top/two/deeper")
(($(sums "$top/one" | wc -l) == 5))

cd "$top"
dist=one/dist
mkdir -p installed/var/lib/dpkg archive
touch installed/var/lib/dpkg/status
dpkg --root=installed --force-not-root --force-bad-path --log=dpkg.log -i $dist/*.deb
tar -xzf $dist/*.tar.gz -C archive
for file in usr/bin/step-revoke-plugin usr/share/bash-completion/completions/step-revoke-plugin \
	usr/share/zsh/vendor-completions/_step-revoke-plugin usr/share/fish/vendor_completions.d/step-revoke-plugin.fish \
	usr/share/doc/step-revoke-plugin/copyright usr/share/doc/step-revoke-plugin/THIRD-PARTY-NOTICES; do
	[[ -s installed/$file ]]
done
ls archive
(($(find archive -type f -size +0 | wc -l) == 8))
version=$(sed 's/.*"version":"\([^"]*\)".*/v\1/' $dist/metadata.json)
PATH=$top/installed/usr/bin:${STEP:+$(dirname "$STEP"):}$PATH step revoke --version | grep -F "step-revoke-plugin/$version (linux/amd64)"
man -l installed/usr/share/man/man1/step-revoke-plugin.1.gz | grep -F "$version" >/dev/null

# The program itself says what is linked into it.
program=installed/usr/bin/step-revoke-plugin
notices=installed/usr/share/doc/step-revoke-plugin/THIRD-PARTY-NOTICES
while read -r module; do
	grep -qiE "^$module (licen[cs]e|copying)" $notices || { echo "there is no license of $module" >&2; exit 1; }
done < <(go version -m $program | awk '$1 == "dep" { print $2 "@" $3 }'; go version $program | awk '{ print "Go@" $2 }')
