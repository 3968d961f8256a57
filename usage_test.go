//go:build unix

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// badInputScript is the session around the table of bad input: it sets up two
// CAs, and shows that no case has changed their databases, while the same
// certificate can be revoked by who does it right.
const badInputScript = `
# A CA with a token that was used, and that it would take again but for that.
ca use other
ca init
exec sed -i.orig 's/"authority": {/"authority": {"disableIssuedAtCheck": true,/' other/config/ca.json
ca start
issue stranger spent
env STEPPATH=$WORK/other
exec step ca token --provisioner-password-file other/provisioner-password --output-file used.token --revoke $spent
exits 0 step-revoke-plugin --token-file used.token $spent
env STEPPATH=$WORK/ca
snapshot

# The CA whose certificates nobody revokes.
ca use ca
ca init
exec step ca provisioner add ops --type JWK --create --password-file ca/password
exec step ca provisioner add web --type ACME
exec step ca provisioner add hosts --type X5C --x5c-roots ca/certs/root_ca.crt
ca start
issue victim friend --provisioner admin
exec step crypto change-pass victim.key --out encrypted.key --new-password-file ca/password
chmod 0600 encrypted.key
ca stop
snapshot
exec cp -R ca/db stopped.db
ca start

bad-input
! exists conf/gone conf/empty/MANIFEST
unchanged
exits 0 step-revoke-plugin --provisioner admin --password-file ca/provisioner-password $victim
recorded $victim
ca use other
unchanged
`

// A badInput is a command line that must come to nothing.
type badInput struct {
	args   string // separated by blanks, with the script's variables; '' is an empty one
	code   int
	stderr string // all of it, with the script's variables
}

// badInputs are run in $WORK, without a terminal, in the script's environment.
// But for what is bad about them most would revoke the certificate victim.
var badInputs = []badInput{
	// Serial numbers.
	{"$admin ''", 2, `error: the serial number is empty
hint: step certificate inspect FILE shows it`},
	{"$admin 0", 2, `error: the serial number 0 is zero
hint: a serial number is positive and has at most 20 octets (RFC 5280)`},
	{"$admin 0x0", 2, `error: the serial number 0x0 is zero
hint: a serial number is positive and has at most 20 octets (RFC 5280)`},
	{"$admin 000", 2, `error: the serial number 000 is zero
hint: a serial number is positive and has at most 20 octets (RFC 5280)`},
	{"$admin -1", 2, `error: "-1" is not a serial number
hint: a serial number is positive and has no sign`},
	{"$admin +$victim", 2, `error: "+$victim" is not a serial number
hint: a serial number is positive and has no sign`},
	{"$admin -- -$victim", 2, `error: "-$victim" is not a serial number
hint: a serial number is positive and has no sign`},
	{"$admin 1_0", 2, `error: "1_0" is not a serial number
hint: write it without underscores`},
	{"$admin 0x", 2, `error: "0x" is not a serial number
hint: hexadecimal digits are missing after 0x`},
	{"$admin 00$victim", 2, `error: "00$victim" is not a serial number
hint: write it without leading zeros if it is decimal: $victim; write 0x00$victim if it is hexadecimal`},
	{"$admin 5a3a", 2, `error: "5a3a" is not a serial number
hint: write 0x5a3a if it is hexadecimal`},
	{"$admin 1e5", 2, `error: "1e5" is not a serial number
hint: write 0x1e5 if it is hexadecimal`},
	{"$admin victim.crt", 2, `error: "victim.crt" is not a serial number
hint: use --cert victim.crt to revoke the certificate in a file`},
	{"$admin ca/certs", 2, `error: "ca/certs" is not a serial number
hint: use --cert ca/certs to revoke the certificate in a file`},
	{"$admin ABC:DEF", 2, `error: "ABC:DEF" is not a serial number
hint: write it in decimal, in hexadecimal with 0x in front, or as hexadecimal bytes with colons between them`},
	{"$admin 0x1$twenty_octets", 2, `error: the serial number 0x1$twenty_octets has 21 octets
hint: a serial number is positive and has at most 20 octets (RFC 5280)`},
	{"$admin 0x$digits", 2, `error: the serial number with 200 digits is too long
hint: a serial number is positive and has at most 20 octets (RFC 5280)`},
	{"$admin 18446744073709551615", 2, `error: the serial number 18446744073709551615 is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits
hint: for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown`},
	{"$admin 0xff", 2, `error: the serial number 255 is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits
hint: for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown`},
	{"$admin 12:34:56", 2, `error: the serial number 1193046 is too small for an X.509 certificate of step-ca, whose serial numbers are 128 random bits
hint: for an SSH certificate use 'step ssh revoke'; if it really is an X.509 certificate of this CA, add --allow-unknown`},
	{"$admin $token", 2, `error: an argument is a token, not a serial number
hint: use --token-file FILE, or --token`},
	{"$admin $victim nonsense", 2, `error: "nonsense" is not a serial number
hint: write it in decimal, in hexadecimal with 0x in front, or as hexadecimal bytes with colons between them`},
	{"$admin", 2, `error: a serial number, --cert or --from is missing, and there is no terminal to ask for it`},
	{"--token-file good.token $victim $friend", 2, `error: a token revokes one certificate, not 2
hint: leave out the token to revoke several with a provisioner`},
	{"--token-file good.token", 2, `error: a serial number, --cert or --from is missing, and there is no terminal to ask for it`},
	{"--cert victim.crt --key victim.key $victim", 2, `error: --key goes with the certificate in --cert alone, not with serial numbers
hint: leave out --key to revoke several with a provisioner`},
	{"--cert victim.crt --cert friend.crt --key victim.key", 2, `error: --key goes with one --cert, not with 2
hint: leave out --key to revoke several with a provisioner`},

	// Many certificates.
	{"$admin --from none", 2, `error: reading what to revoke: open none: no such file or directory`},
	{"$admin --from ca", 2, `error: reading what to revoke: read ca: is a directory`},
	{"$admin --from ''", 2, `error: --from has no value`},
	{"$admin $victim --from", 2, `error: --from has no value`},
	{"$admin --from blank --from blank", 2, `error: --from is given twice`},
	{"$admin --from blank", 2, `error: blank names no certificate at all
hint: has the program that should have written it failed?
hint: a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json`},
	{"$admin --from victim.key", 2, `error: victim.key holds no certificate, but PEM of type "EC PRIVATE KEY"
hint: a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json`},
	{"$admin --from ca/provisioner-password", 2, `error: ca/provisioner-password, line 1 is not a serial number
hint: a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json`},
	{"$admin --from ca/certs/root_ca.crt", 2, `⚠ ca/certs/root_ca.crt, line 1: left out the certificate of a CA (CN=ca Root CA,O=ca)
error: ca/certs/root_ca.crt holds certificates of CAs only
hint: step-ca revokes the certificates that it issues, not those of CAs`},
	{"$admin --from victim.csr", 2, `error: victim.csr, line 1: PEM of type "CERTIFICATE REQUEST", and not a certificate
hint: a file of --from holds serial numbers, one a line, or PEM certificates, or the output of --format json`},
	{"$admin --from malformed.pem", 2, `error: malformed.pem, line 1: the certificate that begins here is malformed`},
	{"$admin --from victim.crt", 2, `⚠ victim.crt, line 14: left out the certificate of a CA (CN=ca Intermediate CA,O=ca)
✔ From: victim.crt, 1 certificate
error: --force is missing, and there is no terminal to ask for it`},
	{"--cert victim.crt --key victim.key --from victim.crt", 2, `error: --key goes with the certificate in --cert alone, not with serial numbers
hint: leave out --key to revoke several with a provisioner`},
	{"--password-file /dev/stdin --provisioner admin --from - --force", 2, `error: --from and --provisioner-password-file both read /dev/stdin, which can be read only once`},
	{"$admin --journal '' $victim", 2, `error: --journal has no value`},
	{"$admin --journal ca $victim", 2, `error: opening the journal: open ca: is a directory
hint: a journal is a regular file of yours that others cannot write`},
	{"$admin --journal victim.crt $victim", 2, `error: victim.crt is not a journal of this program
hint: name a file that does not exist yet`},
	{"$admin --concurrency 0 $victim", 2, `error: --concurrency 0 is not between 1 and 1000`},
	{"$admin --concurrency 1001 $victim", 2, `error: --concurrency 1001 is not between 1 and 1000`},
	{"$admin --concurrency many $victim", 2, `error: "many" is no value for --concurrency, which takes a whole number`},
	{"$admin --rate 0 $victim", 2, `error: --rate 0 is not a number of revocations per second
hint: without --rate there is no bound`},
	{"$admin --rate -1 $victim", 2, `error: --rate -1 is not a number of revocations per second
hint: without --rate there is no bound`},
	{"$admin --rate 1.5 $victim", 2, `error: "1.5" is no value for --rate, which takes a whole number`},

	// Reasons.
	{"$admin --reasonCode 7 $victim", 2, `error: reason code 7 is not used by RFC 5280
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode 11 $victim", 2, `error: reason code 11 does not exist
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode=-1 $victim", 2, `error: reason code -1 does not exist
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode foo $victim", 2, `error: unknown reason code "foo"
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reason-code 1.0 $victim", 2, `error: unknown reason code "1.0"
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode 1 --reason-code 4 $victim", 2, `error: --reasonCode is given twice`},
	{"$admin --cert /dev/zero", 2, `error: reading the certificate: /dev/zero has more than 16777216 bytes`},
	{"$admin --reasonCode 01 $victim", 2, `error: reason code 01 does not exist
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode keycompromize $victim", 2, `error: unknown reason code "keycompromize"
hint: did you mean keyCompromise?
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode Cessation-of-operations $victim", 2, `error: unknown reason code "Cessation-of-operations"
hint: did you mean cessationOfOperation?
hint: codes are 0 to 6 and 8 to 10, or their names: see 'step revoke --help'`},
	{"$admin --reasonCode removeFromCRL $victim", 2, `⚠ removeFromCRL revokes for good, and OpenSSL treats a CRL entry with this code as not revoked
error: --force is missing, and there is no terminal to ask for it`},

	// Flags.
	{"$admin --provisoner admin $victim", 2, `error: there is no flag --provisoner
hint: see 'step revoke --help'`},
	{"$admin -x $victim", 2, `error: there is no flag -x
hint: see 'step revoke --help'`},
	{"$admin --offline=perhaps $victim", 2, `error: --offline is either true or false`},
	{"$admin $victim --cert", 2, `error: --cert has no value`},
	{"$admin $victim --reason", 2, `error: --reason has no value`},
	{"$victim --token", 2, `error: --token has no value`},
	{"$admin --cert ''", 2, `error: --cert has no value`},
	{"--cert victim.crt --key ''", 2, `error: --key has no value`},
	{"--token '' $victim", 2, `error: --token has no value`},
	{"--token-file= $victim", 2, `error: --token-file has no value`},
	{"--provisioner '' $victim", 2, `error: --provisioner has no value`},
	{"--password-file= $victim", 2, `error: --provisioner-password-file has no value`},
	{"$admin --ca-url '' $victim", 2, `error: --ca-url has no value`},
	{"$admin --root '' $victim", 2, `error: --root has no value`},
	{"$admin --fingerprint '' $victim", 2, `error: --fingerprint has no value`},
	{"$admin --context '' $victim", 2, `error: --context has no value`},
	{"--offline --ca-config '' $victim", 2, `error: --ca-config has no value`},
	{"--issuer admin --key victim.key --cert victim.crt", 2, `error: --key and --provisioner exclude each other`},
	{"--password-file ca/password --token-file good.token $victim", 2, `error: --token-file and --provisioner-password-file exclude each other`},
	{"$admin --context nowhere $victim", 2, `error: there is no context "nowhere"
hint: contexts are: none`},

	// Files that are not there or cannot be read.
	{"$admin --cert none", 2, `error: reading the certificate: open none: no such file or directory`},
	{"$admin --cert ca", 2, `error: reading the certificate: read ca: is a directory`},
	{"--cert victim.crt --key none", 2, `error: reading the private key: open none: no such file or directory`},
	{"--cert victim.crt --key ca", 2, `error: reading the private key: read ca: is a directory`},
	{"--cert victim.crt --key encrypted.key --key-password-file none", 2, `error: reading the password: open none: no such file or directory`},
	{"--cert victim.crt --key encrypted.key --key-password-file ca", 2, `error: reading the password: read ca: is a directory`},
	{"--cert victim.crt --key encrypted.key --key-password-file blank", 2, `error: the password file blank is empty`},
	{"--token-file none $victim", 2, `error: reading the token: open none: no such file or directory`},
	{"--token-file ca $victim", 2, `error: reading the token: read ca: is a directory`},
	{"--token-file blank $victim", 2, `error: the token file blank is empty`},
	{"--token-file $token $victim", 2, `error: --token-file names a file, and this is a token
hint: --token takes a token itself`},
	{"--provisioner admin --provisioner-password-file none $victim", 2, `error: reading the password: open none: no such file or directory`},
	{"--provisioner admin --provisioner-password-file ca $victim", 2, `error: reading the password: read ca: is a directory`},
	{"--provisioner admin --provisioner-password-file blank $victim", 2, `error: the password file blank is empty`},
	{"--provisioner admin --provisioner-password-file none --cert victim.crt", 2, `error: reading the password: open none: no such file or directory`},
	{"--provisioner-key none $victim", 2, `error: reading the provisioner's key: open none: no such file or directory`},
	{"--provisioner-key ca $victim", 2, `error: reading the provisioner's key: read ca: is a directory`},
	{"--provisioner-key blank $victim", 2, `error: the key in blank is neither a JWK nor a private key in PEM`},
	{"$admin --root none $victim", 2, `error: reading the certificate: open none: no such file or directory`},
	{"$admin --root ca $victim", 2, `error: reading the certificate: read ca: is a directory`},
	{"$admin --root blank $victim", 2, `error: blank is empty
hint: --root names a PEM file with a certificate in it`},
	{"$admin --offline --ca-config none $victim", 2, `✔ CA: offline, none
error: reading the CA's configuration: error opening none: open none: no such file or directory
hint: --ca-config names the CA's ca.json, --context the context that it is in`},
	{"$admin --offline --ca-config ca $victim", 2, `✔ CA: offline, ca
error: reading the CA's configuration: error parsing ca: read ca: is a directory
hint: --ca-config names the CA's ca.json, --context the context that it is in`},
	{"$admin --offline --ca-config blank $victim", 2, `✔ CA: offline, blank
error: reading the CA's configuration: error parsing blank: EOF
hint: --ca-config names the CA's ca.json, --context the context that it is in`},
	{"$admin --offline --ca-password-file none $victim", 2, `✔ CA: offline, $WORK/ca/config/ca.json
error: reading the password: open none: no such file or directory`},
	{"$admin --offline --ca-password-file ca $victim", 2, `✔ CA: offline, $WORK/ca/config/ca.json
error: reading the password: read ca: is a directory`},
	{"$admin --offline --ca-password-file blank $victim", 2, `✔ CA: offline, $WORK/ca/config/ca.json
error: the password file blank is empty`},

	// The wrong kind of file.
	{"$admin --cert victim.key", 2, `error: victim.key holds no certificate, but PEM of type "EC PRIVATE KEY"
hint: --cert names a PEM file with a certificate in it`},
	{"$admin --cert victim.csr", 2, `error: victim.csr holds no certificate, but PEM of type "CERTIFICATE REQUEST"
hint: --cert names a PEM file with a certificate in it`},
	{"$admin --cert malformed.pem", 2, `error: the certificate in malformed.pem is malformed
hint: --cert names a PEM file with a certificate in it`},
	{"$admin --cert blank", 2, `error: blank is empty
hint: --cert names a PEM file with a certificate in it`},
	{"$admin --cert good.token", 2, `error: good.token is not a certificate
hint: --cert names a PEM file with a certificate in it`},
	{"$admin --cert ca/certs/intermediate_ca.crt", 2, `error: the first certificate in ca/certs/intermediate_ca.crt is that of a CA (CN=ca Intermediate CA,O=ca)
hint: step-ca revokes the certificates that it issues, not those of CAs`},
	{"--cert ca/certs/intermediate_ca.crt --key victim.key", 2, `error: the first certificate in ca/certs/intermediate_ca.crt is that of a CA (CN=ca Intermediate CA,O=ca)
hint: step-ca revokes the certificates that it issues, not those of CAs`},
	{"--cert victim.crt --key victim.crt", 2, `error: victim.crt holds no private key that can sign
hint: --key names a PEM file with the private key of the certificate in --cert`},
	{"--cert victim.crt --key malformed.pem", 2, `error: malformed.pem is not a private key that can be read: error parsing malformed.pem: x509: malformed certificate
hint: --key names a PEM file with the private key of the certificate in --cert`},
	{"--cert victim.crt --key blank", 2, `error: blank is not a private key that can be read: error decoding blank: not a valid PEM encoded block
hint: --key names a PEM file with the private key of the certificate in --cert`},
	{"--cert victim.crt --key public.key", 2, `error: public.key holds no private key that can sign
hint: --key names a PEM file with the private key of the certificate in --cert`},
	{"--cert victim.crt --key ca/provisioner-password", 2, `error: ca/provisioner-password is not a private key that can be read: error decoding ca/provisioner-password: not a valid PEM encoded block
hint: --key names a PEM file with the private key of the certificate in --cert`},
	{"--cert victim.crt --key friend.key", 2, `error: the key in friend.key does not belong to the certificate in victim.crt`},
	{"--cert expired.crt --key expired.key", 2, `error: the certificate in expired.crt expired at $expired_at and cannot authorize its own revocation
hint: leave out --key to revoke it with a provisioner`},
	{"--cert future.crt --key future.key", 2, `error: the certificate in future.crt is not valid before $future_at
hint: check the clock, or leave out --key to revoke it with a provisioner`},
	{"--cert stranger.crt --key stranger.key", 1, `✔ CA: $ca_url
error: the certificate in stranger.crt was not issued by this CA but by "CN=other Intermediate CA,O=other"
hint: revoke it at its own CA; --allow-unknown tries it here all the same`},
	{"$admin --cert stranger.crt", 1, `✔ CA: $ca_url
error: the certificate in stranger.crt was not issued by this CA but by "CN=other Intermediate CA,O=other"
hint: revoke it at its own CA; --allow-unknown tries it here all the same`},
	{"$admin --cert forged.crt", 1, `✔ CA: $ca_url
error: the certificate in forged.crt was not issued by this CA but by "CN=ca Intermediate CA,O=ca"
hint: revoke it at its own CA; --allow-unknown tries it here all the same`},
	{"--token-file good.token --root victim.key $victim", 2, `error: victim.key holds no certificate, but PEM of type "EC PRIVATE KEY"
hint: --root names a PEM file with a certificate in it`},
	{"--provisioner-key victim.crt $victim", 2, `error: the key in victim.crt is neither a JWK nor a private key in PEM`},
	{"--provisioner-key public.jwk $victim", 2, `error: the key in public.jwk is not a private key that can be read`},
	{"--provisioner-key good.token $victim", 2, `error: the key in good.token is neither a JWK nor a private key in PEM`},

	// Passwords.
	{"--provisioner admin --password-file ca/password $victim", 1, `✔ CA: $ca_url
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the password in ca/password does not fit the key of the provisioner "admin"`},
	{"--provisioner admin $victim", 2, `error: --provisioner-password-file is missing, and there is no terminal to ask for it`},
	{"--provisioner admin --cert victim.crt", 2, `error: --provisioner-password-file is missing, and there is no terminal to ask for it`},
	{"--cert victim.crt --key encrypted.key --key-password-file ca/provisioner-password", 2, `error: the password in ca/provisioner-password does not fit the key in encrypted.key`},
	{"--cert victim.crt --key encrypted.key", 2, `error: --key-password-file is missing, and there is no terminal to ask for it`},
	{"--provisioner-key encrypted.jwk --password-file ca/password $victim", 2, `error: the password in ca/password does not fit the key in encrypted.jwk`},
	{"--provisioner-key encrypted.jwk $victim", 2, `error: --provisioner-password-file is missing, and there is no terminal to ask for it`},
	{"$admin --offline --ca-config conf/crl.json --ca-password-file ca/provisioner-password $victim", 2, `✔ CA: offline, conf/crl.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the password in ca/provisioner-password does not fit the CA's key $WORK/ca/secrets/intermediate_ca_key`},
	{"$admin --offline --ca-config conf/crl.json $victim", 1, `✔ CA: offline, conf/crl.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
⚠ no new CRL will be made: --ca-password-file is missing, and there is no terminal to ask for it
error: the CA's database $WORK/ca/db is in use
hint: the CA is running: revoke online, without --offline, or stop it first`},

	// The CA.
	{"$admin --ca-url $down --root ca/certs/root_ca.crt $victim", 1, `✔ CA: $down
error: the CA at $down cannot be reached: dial tcp $down_address: connect: connection refused
hint: check that the CA is running and that --ca-url is right`},
	{"--cert victim.crt --key victim.key --ca-url $down --root ca/certs/root_ca.crt", 1, `✔ CA: $down
error: the CA at $down cannot be reached: dial tcp $down_address: connect: connection refused
hint: check that the CA is running and that --ca-url is right`},
	{"--ca-url $down --token-file good.token --root ca/certs/root_ca.crt $victim", 1, `✔ CA: $down
error: the certificate with serial number $victim was not revoked: the CA at $down cannot be reached: dial tcp $down_address: connect: connection refused
hint: check that the CA is running and that --ca-url is right`},
	{"$admin --ca-url $down --fingerprint $ca_fingerprint $victim", 1, `✔ CA: $down
error: the CA at $down cannot be reached: dial tcp $down_address: connect: connection refused
hint: check that the CA is running and that --ca-url is right`},
	{"$admin --ca-url $down $victim", 2, `error: there is no root certificate to trust $down with
hint: use --root FILE or --fingerprint HEX`},
	{"$admin --root other/certs/root_ca.crt $victim", 1, `✔ CA: $ca_url
error: the CA at $ca_url cannot be reached: tls: failed to verify certificate: x509: certificate signed by unknown authority
hint: its certificate does not come from the root that is trusted: check --root, --fingerprint and --ca-url`},
	{"--cert victim.crt --key victim.key --root other/certs/root_ca.crt", 1, `✔ CA: $ca_url
error: the CA at $ca_url cannot be reached: tls: failed to verify certificate: x509: certificate signed by unknown authority
hint: its certificate does not come from the root that is trusted: check --root, --fingerprint and --ca-url`},
	{"--token-file good.token --root other/certs/root_ca.crt $victim", 2, `error: no certificate in other/certs/root_ca.crt has the token's root fingerprint $ca_fingerprint
hint: is the token for another CA? without --root the token's own fingerprint counts`},
	{"$admin --fingerprint $other_fingerprint $victim", 1, `✔ CA: $ca_url
error: the CA at $ca_url has no root certificate with the fingerprint $other_fingerprint: root certificate with fingerprint "$other_fingerprint" was not found (HTTP 404, request ID …)
hint: check it, and --ca-url: 'step certificate fingerprint root_ca.crt' prints the right one on the CA's host`},
	{"$admin --fingerprint 5a3a $victim", 2, `error: "5a3a" is not a SHA-256 fingerprint
hint: 'step certificate fingerprint root_ca.crt' prints it: 64 hexadecimal digits`},
	{"$admin --fingerprint $other_fingerprint --root ca/certs/root_ca.crt $victim", 2, `error: no certificate in ca/certs/root_ca.crt has the fingerprint $other_fingerprint
hint: --root and --fingerprint must agree; one of them is enough`},
	{"$admin --ca-url http://127.0.0.1 $victim", 2, `error: http://127.0.0.1 is not an HTTPS URL
hint: step-ca serves HTTPS: write https://127.0.0.1`},
	{"$admin --ca-url ldaps://127.0.0.1 $victim", 2, `error: ldaps://127.0.0.1 is not an HTTPS URL
hint: step-ca serves HTTPS: write https://127.0.0.1`},
	{"$admin --ca-url https:// $victim", 2, `error: "https://" is not the URL of a CA
hint: write https://HOST:PORT`},
	{"$admin --ca-url https://admin:$password@127.0.0.1 $victim", 2, `error: https://admin:xxxxx@127.0.0.1 holds a user name
hint: write https://127.0.0.1`},
	{"$admin --ca-url https://127.0.0.1:none $victim", 2, `error: "https://127.0.0.1:none" is not the URL of a CA
hint: write https://HOST:PORT`},
	{"$admin --ca-url https://admin:$password@127.0.0.1:none $victim", 2, `error: "127.0.0.1:none" is not the URL of a CA
hint: write https://HOST:PORT`},
	{"$admin --ca-url $plain --root ca/certs/root_ca.crt $victim", 1, `✔ CA: $plain
error: the CA at $plain cannot be reached: tls: first record does not look like a TLS handshake
hint: what listens there does not speak TLS`},
	{"$admin --ca-url $plain --fingerprint $ca_fingerprint $victim", 1, `✔ CA: $plain
error: the CA at $plain cannot be reached: tls: first record does not look like a TLS handshake
hint: what listens there does not speak TLS`},
	{"$admin --ca-url $page --root page.crt $victim", 1, `✔ CA: $page
error: the CA at $page was asked for its provisioners and answered what is not JSON: invalid character 'h' looking for beginning of value
hint: is this the address of a step-ca?`},
	{"$admin --ca-url https://localhost:$port --root ca/certs/root_ca.crt $victim", 1, `✔ CA: https://localhost:$port
error: the CA at https://localhost:$port cannot be reached: tls: failed to verify certificate: x509: certificate is not valid for any names, but wanted to match localhost
hint: use a name that is in the CA's certificate (dnsNames in its ca.json)`},

	// Tokens.
	{"--token-file good.token $friend", 2, `error: the token is for "$victim", not for the serial number $friend
hint: make one with: step ca token $friend --revoke`},
	{"--token $hex_token $victim", 2, `error: the token is for this serial number in another form ($victim_hex), which step-ca does not accept
hint: make one with: step ca token $victim --revoke`},
	{"--token $sign_token $victim", 2, `error: the token is for signing a certificate, not for revoking an X.509 certificate
hint: make one with: step ca token $victim --revoke`},
	{"--token $ssh_token $victim", 2, `error: the token is for revoking an SSH certificate, not for revoking an X.509 certificate
hint: make one with: step ca token $victim --revoke`},
	{"--token $nowhere_token $victim", 2, `error: the token is for the audience "$ca_url/elsewhere", not for revoking an X.509 certificate
hint: make one with: step ca token $victim --revoke`},
	{"--token $silent_token $victim", 2, `error: the token is for no audience, not for revoking an X.509 certificate
hint: make one with: step ca token $victim --revoke`},
	{"--token $expired_token $victim", 2, `error: the token expired at $token_expired_at
hint: make one with: step ca token $victim --revoke`},
	{"--token garbage $victim", 2, `error: the token is not a signed JSON Web Token
hint: 'step ca token SERIAL-NUMBER --revoke' makes one; --token-file reads it from a file`},
	{"--token good.token $victim", 2, `error: the token is not a signed JSON Web Token
hint: 'step ca token SERIAL-NUMBER --revoke' makes one; --token-file reads it from a file`},
	{"--token-file encrypted.jwk $victim", 2, `error: the token is not a signed JSON Web Token
hint: 'step ca token SERIAL-NUMBER --revoke' makes one; --token-file reads it from a file`},
	{"--token-file used.token --ca-url $other_url --root other/certs/root_ca.crt $spent", 1, `✔ CA: $other_url
error: the certificate with serial number $spent was not revoked: The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info (HTTP 401, request ID …)
hint: the clock here or on the CA may be off
hint: the host in --ca-url may not be one of the CA's dnsNames
hint: the CA may have restarted after the token was made
hint: the token may have been used before: each works once`},
	{"--token $early_token $victim", 1, `✔ CA: $ca_url
error: the certificate with serial number $victim was not revoked: The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info (HTTP 401, request ID …)
hint: the clock here or on the CA may be off
hint: the host in --ca-url may not be one of the CA's dnsNames
hint: the CA may have restarted after the token was made
hint: the token may have been used before: each works once`},
	{"--token-file good.token --ca-url https://ca.example.com $victim", 2, `error: the token is for the CA at 127.0.0.1:$port, not for https://ca.example.com
hint: the host in --ca-url must be the one in the token`},
	{"--token-file good.token --fingerprint $other_fingerprint $victim", 2, `error: the token's root fingerprint $ca_fingerprint differs from --fingerprint
hint: is the token for another CA? without --fingerprint the token's own counts`},
	{"--token $bad_sum_token $victim", 2, `error: the root fingerprint in the token is not a SHA-256 fingerprint
hint: 'step ca token SERIAL-NUMBER --revoke' makes a token with the right one`},
	{"--token $http_token $victim", 2, `error: the token's audience: http://127.0.0.1/1.0/revoke is not an HTTPS URL
hint: step-ca serves HTTPS: write https://127.0.0.1`},
	{"--token $other_token $victim", 1, `✔ CA: $ca_url
error: the certificate with serial number $victim was not revoked: The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info (HTTP 401, request ID …)
hint: the clock here or on the CA may be off
hint: the host in --ca-url may not be one of the CA's dnsNames
hint: the CA may have restarted after the token was made
hint: the token may have been used before: each works once`},
	{"--token $other_sum_token $victim", 1, `✔ CA: $other_url
error: the certificate with serial number $victim was not revoked: The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info (HTTP 401, request ID …)
hint: the clock here or on the CA may be off
hint: the host in --ca-url may not be one of the CA's dnsNames
hint: the CA may have restarted after the token was made
hint: the token may have been used before: each works once`},

	// Provisioners.
	{"--provisioner nobody --password-file ca/password $victim", 1, `✔ CA: $ca_url
error: the CA has no provisioner "nobody"
hint: its JWK provisioners are: admin, ops`},
	{"--kid nokey --password-file ca/password $victim", 1, `✔ CA: $ca_url
error: the CA has no JWK provisioner with the key ID "nokey"
hint: its JWK provisioners are: admin, ops`},
	{"--provisioner ops --kid $ca_kid --password-file ca/password $victim", 1, `✔ CA: $ca_url
error: the provisioner "ops" has another key
hint: leave out --provisioner, or check --kid and --provisioner-key`},
	{"--password-file ca/provisioner-password $victim", 2, `✔ CA: $ca_url
error: --provisioner is missing, and there is no terminal to ask for it
hint: fitting are: admin (JWK) [kid: $ca_kid], ops (JWK) [kid: $ops_kid]`},
	{"--provisioner web --password-file ca/password $victim", 1, `✔ CA: $ca_url
error: the provisioner "web" is of type ACME and cannot authorize a revocation: ACME has no tokens
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"--provisioner hosts --password-file ca/password $victim", 1, `✔ CA: $ca_url
error: the provisioner "hosts" is of type X5C
hint: authorize with a certificate that it trusts: --x5c-cert and --x5c-key`},
	{"--provisioner-key stranger.jwk $victim", 1, `✔ CA: $ca_url
error: the key in stranger.jwk is not that of a provisioner of this CA
hint: its JWK provisioners are: admin, ops`},
	{"--provisioner-key admin.jwk --provisioner ops $victim", 1, `✔ CA: $ca_url
error: the provisioner "ops" has another key
hint: leave out --provisioner, or check --kid and --provisioner-key`},
	{"$types --provisioner a-oidc $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-oidc" is of type OIDC and cannot authorize a revocation: the subject of its tokens is a user, and step-ca wants the serial number there
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-acme $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-acme" is of type ACME and cannot authorize a revocation: ACME has no tokens
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-x5c $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-x5c" is of type X5C
hint: authorize with a certificate that it trusts: --x5c-cert and --x5c-key`},
	{"$types --provisioner a-sshpop $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-sshpop" is of type SSHPOP and cannot authorize a revocation: it is for SSH certificates
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-k8ssa $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-k8ssa" is of type K8sSA and cannot authorize a revocation: the subject of its tokens is a service account, and step-ca wants the serial number there
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-aws $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-aws" is of type AWS and cannot authorize a revocation: the subject of its tokens is an instance, and step-ca wants the serial number there
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-gcp $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-gcp" is of type GCP and cannot authorize a revocation: the subject of its tokens is an instance, and step-ca wants the serial number there
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-azure $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-azure" is of type Azure and cannot authorize a revocation: the subject of its tokens is an instance, and step-ca wants the serial number there
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-scep $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-scep" is of type SCEP and cannot authorize a revocation: SCEP has no tokens
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types --provisioner a-nebula $victim", 2, `✔ CA: offline, conf/types.json
error: the provisioner "a-nebula" is of type Nebula and cannot authorize a revocation: step-ca takes no revocations from it
hint: use a JWK or X5C provisioner, or the certificate itself with --cert and --key`},
	{"$types $victim", 2, `✔ CA: offline, conf/types.json
error: the CA has no JWK provisioner to authorize the revocation
hint: only JWK and X5C provisioners can (X5C: --x5c-cert and --x5c-key); or the certificate itself, with --cert and --key`},

	// Offline.
	{"$admin --offline $victim", 1, `✔ CA: offline, $WORK/ca/config/ca.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the CA's database $WORK/ca/db is in use
hint: the CA is running: revoke online, without --offline, or stop it first`},
	{"--offline --cert victim.crt --key victim.key", 1, `✔ CA: offline, $WORK/ca/config/ca.json
error: the CA's database $WORK/ca/db is in use
hint: the CA is running: revoke online, without --offline, or stop it first`},
	{"--offline --provisioner nobody --password-file ca/password $victim", 2, `✔ CA: offline, $WORK/ca/config/ca.json
error: the CA has no provisioner "nobody"
hint: its JWK provisioners are: admin, ops`},
	{"--offline --provisioner admin --password-file ca/password $victim", 2, `✔ CA: offline, $WORK/ca/config/ca.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the password in ca/password does not fit the key of the provisioner "admin"`},
	{"--offline --cert stranger.crt --key stranger.key", 2, `✔ CA: offline, $WORK/ca/config/ca.json
error: the certificate in stranger.crt was not issued by this CA but by "CN=other Intermediate CA,O=other"
hint: revoke it at its own CA; --allow-unknown tries it here all the same`},
	{"$admin --offline --ca-config conf/garbage.json $victim", 2, `✔ CA: offline, conf/garbage.json
error: reading the CA's configuration: error parsing conf/garbage.json: invalid character 'g' looking for beginning of value
hint: --ca-config names the CA's ca.json, --context the context that it is in`},
	{"$admin --offline --ca-config conf/invalid.json $victim", 2, `✔ CA: offline, conf/invalid.json
error: conf/invalid.json: the configuration is invalid: address cannot be empty`},
	{"$admin --offline --ca-config conf/no-authority.json $victim", 2, `✔ CA: offline, conf/no-authority.json
error: the CA has no JWK provisioner to authorize the revocation
hint: only JWK and X5C provisioners can (X5C: --x5c-cert and --x5c-key); or the certificate itself, with --cert and --key`},
	{"$admin --offline --ca-config conf/no-root.json $victim", 2, `✔ CA: offline, conf/no-root.json
error: reading the CA's root certificate: error reading "$WORK/none": no such file or directory
hint: check "root" in ca.json`},
	{"$admin --offline --ca-config conf/no-intermediate.json $victim", 2, `✔ CA: offline, conf/no-intermediate.json
error: reading the CA's intermediate certificate: error reading "$WORK/none": no such file or directory
hint: check "crt" in ca.json`},
	{"$admin --offline --ca-config conf/no-db.json $victim", 2, `✔ CA: offline, conf/no-db.json
error: conf/no-db.json: the CA has no database ("db"), and step-ca cannot revoke without one`},
	{"$admin --offline --ca-config conf/ra.json $victim", 2, `✔ CA: offline, conf/ra.json
error: conf/ra.json: this is a registration authority (stepcas), and its certificates are revoked by the CA behind it
hint: revoke online, without --offline`},
	{"$admin --offline --ca-config conf/linked.json $victim", 2, `✔ CA: offline, conf/linked.json
error: conf/linked.json: this is a linked CA, which keeps its revocations elsewhere
hint: revoke online, without --offline`},
	{"$admin --offline --ca-config conf/db-gone.json $victim", 2, `✔ CA: offline, conf/db-gone.json
error: the CA's database: stat $WORK/conf/gone: no such file or directory
hint: check "db" in ca.json; a new database would be a new CA`},
	{"$admin --offline --ca-config conf/db-empty.json $victim", 2, `✔ CA: offline, conf/db-empty.json
error: the CA's database: $WORK/conf/empty is empty
hint: check "db" in ca.json; a new database would be a new CA`},
	{"$admin --offline --ca-config conf/db-foreign.json $victim", 2, `✔ CA: offline, conf/db-foreign.json
error: the CA's database: $WORK/ca/config is not a Badger database
hint: check "db" in ca.json`},
	{"$admin --offline --ca-config conf/db-file.json $victim", 2, `✔ CA: offline, conf/db-file.json
error: the CA's database: $WORK/conf/garbage.json is not a Badger database
hint: check "db" in ca.json`},
	{"$admin --offline --ca-config conf/bbolt-dir.json $victim", 1, `✔ CA: offline, conf/bbolt-dir.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: opening the CA's database: open $WORK/ca/db: is a directory
hint: check "db" in ca.json`},
	{"$admin --offline --ca-config conf/bbolt-empty.json $victim", 2, `✔ CA: offline, conf/bbolt-empty.json
error: the CA's database: $WORK/conf/empty.db is empty
hint: check "db" in ca.json; a new database would be a new CA`},
	{"$admin --offline --ca-config conf/bbolt-garbage.json $victim", 1, `✔ CA: offline, conf/bbolt-garbage.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: opening the CA's database: invalid database
hint: check "db" in ca.json`},
	{"$admin --offline --ca-config conf/db-type.json $victim", 2, `✔ CA: offline, conf/db-type.json
error: the CA's database is of an unknown type, "oracle"
hint: check "db" in ca.json`},
	{"$admin --offline --ca-config conf/unknown.json 0x$twenty_octets", 1, `✔ CA: offline, conf/unknown.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the CA's database knows no certificate with the serial number 515824107293259853483653470370452830466799721050
hint: check the number; --allow-unknown accepts it all the same`},
	{"$admin --offline --ca-config conf/expired.json --cert expired.crt", 1, `✔ CA: offline, conf/expired.json
✔ Provisioner: admin (JWK) [kid: $ca_kid]
error: the CA's database knows no certificate with the serial number $expired
hint: check the number; --allow-unknown accepts it all the same`},
	{"$admin --offline --ca-config conf/remote.json $victim", 1, `✔ CA: offline, conf/remote.json
error: the CA's database holds no provisioners, although remote management is on
hint: check "db" in ca.json: this looks like a new database, not like the CA's`},
}

// excluding and needing are the tables conflicts and requirements once more, so
// that no row gets lost unnoticed. Each row is run.
var excluding = []struct{ a, b, hint string }{
	{"token", "token-file", ""},
	{"token", "cert", ""},
	{"token-file", "cert", ""},
	{"token", "provisioner", ""},
	{"token-file", "provisioner", ""},
	{"token", "kid", ""},
	{"token-file", "kid", ""},
	{"token", "provisioner-password-file", ""},
	{"token-file", "provisioner-password-file", ""},
	{"token", "provisioner-key", ""},
	{"token-file", "provisioner-key", ""},
	{"token", "x5c-cert", ""},
	{"token-file", "x5c-cert", ""},
	{"token", "offline", "step-ca takes only tokens made after it has started, and --offline starts it"},
	{"token-file", "offline", "step-ca takes only tokens made after it has started, and --offline starts it"},
	{"x5c-cert", "kid", ""},
	{"x5c-cert", "provisioner-key", ""},
	{"key", "x5c-cert", ""},
	{"key", "provisioner", ""},
	{"key", "kid", ""},
	{"key", "provisioner-password-file", ""},
	{"key", "provisioner-key", ""},
	{"offline", "ca-url", "--offline opens the CA that --ca-config describes"},
	{"offline", "root", ""},
	{"offline", "fingerprint", ""},
}

var needing = []struct{ flag, other string }{
	{"key", "cert"},
	{"key-password-file", "key"},
	{"x5c-cert", "x5c-key"},
	{"x5c-key", "x5c-cert"},
	{"x5c-chain", "x5c-cert"},
	{"ca-config", "offline"},
	{"ca-password-file", "offline"},
}

// goodValues are values with which each flag is right on its own.
var goodValues = map[string]string{
	"token": "$token", "token-file": "good.token", "cert": "victim.crt", "key": "victim.key",
	"provisioner": "admin", "kid": "$ca_kid", "provisioner-password-file": "ca/provisioner-password", "provisioner-key": "admin.jwk",
	"offline": "true", "ca-url": "$ca_url", "root": "ca/certs/root_ca.crt", "fingerprint": "$ca_fingerprint",
	"x5c-cert": "victim.crt", "x5c-key": "victim.key", "x5c-chain": "victim.crt",
	"key-password-file": "ca/password", "ca-config": "ca/config/ca.json", "ca-password-file": "ca/password",
}

// pairedFlags makes cases of the flags that exclude or need each other.
func pairedFlags(t *testing.T) (cases []badInput) {
	var listed [][2]string
	add := func(a, b, args, message, hint string) {
		listed = append(listed, [2]string{a, b})
		if a != "key" && b != "key" && b != "cert" {
			args += " $victim"
		}
		if hint != "" {
			message += "\nhint: " + hint
		}
		cases = append(cases, badInput{args, exitUsage, message})
	}
	for _, p := range excluding {
		add(p.a, p.b, fmt.Sprintf("--%s=%s --%s=%s", p.b, goodValues[p.b], p.a, goodValues[p.a]),
			fmt.Sprintf("error: --%s and --%s exclude each other", p.a, p.b), p.hint)
	}
	if !slices.Equal(listed, conflicts) {
		t.Errorf("conflicts are\n%q, want\n%q", conflicts, listed)
	}
	listed = nil
	for _, p := range needing {
		add(p.flag, p.other, fmt.Sprintf("--%s=%s", p.flag, goodValues[p.flag]), fmt.Sprintf("error: --%s needs --%s", p.flag, p.other), "")
	}
	if !slices.Equal(listed, requirements) {
		t.Errorf("requirements are\n%q, want\n%q", requirements, listed)
	}
	return cases
}

func TestBadInput(t *testing.T) {
	cases := append(pairedFlags(t), badInputs...)
	file := filepath.Join(t.TempDir(), "bad-input.txtar")
	if err := os.WriteFile(file, []byte(badInputScript), 0o600); err != nil {
		t.Fatal(err)
	}
	params := scriptParams("")
	params.Files = []string{file}
	params.Cmds["bad-input"] = func(ts *testscript.TestScript, _ bool, _ []string) {
		secrets := makeFixtures(ts)
		t := ts.Value(scriptKey{}).(*script).t.(inTurn).T
		// The group returns when all of its parallel cases have.
		t.Run("cases", func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.args, func(t *testing.T) {
					t.Parallel()
					c.run(t, ts, secrets)
				})
			}
		})
		checkCopies(ts)
		if t.Failed() {
			t.FailNow()
		}
	}
	testscript.RunT(inTurn{t}, params)
}

// databaseCopies are the copies of the CA's database, each for one case that
// opens it: only one process can.
var databaseCopies = []string{"unknown", "expired", "remote"}

// checkCopies makes sure that the copies of the CA's database are still that.
func checkCopies(ts *testscript.TestScript) {
	for _, name := range databaseCopies {
		now, err := readBadger(ts.MkAbs("conf/" + name + ".db"))
		ts.Check(err)
		if !maps.Equal(now, current(ts).saved) {
			ts.Fatalf("the copy %s of the CA's database has changed", name)
		}
	}
}

// inTurn is a test that runs its script at once instead of in parallel, so that
// the script can have subtests.
type inTurn struct{ *testing.T }

func (t inTurn) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(inTurn{t}) })
}
func (inTurn) Parallel()     {}
func (inTurn) Verbose() bool { return testing.Verbose() }

// requestID is what the CA makes up for each answer.
var requestID = regexp.MustCompile(`request ID [0-9a-f-]+`)

// run runs the program and compares all that it says, and its exit code.
func (c badInput) run(t *testing.T, ts *testscript.TestScript, secrets secrets) {
	variable := func(name string) string {
		value := ts.Getenv(name)
		if value == "" {
			t.Fatalf("$%s is not set", name)
		}
		return value
	}
	args := strings.Fields(os.Expand(c.args, variable))
	for i, arg := range args {
		if arg == "''" {
			args[i] = ""
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(ts.Getenv("plugin"), args...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"HOME", "STEPPATH", "PATH", "TMPDIR", "GORACE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != c.code {
		t.Errorf("exit code %d, want %d", code, c.code)
	}
	got := requestID.ReplaceAllString(stderr.String(), "request ID …")
	if want := os.Expand(c.stderr, variable) + "\n"; got != want {
		t.Errorf("standard error is\n%swant\n%s", got, want)
	}
	if stdout.Len() > 0 {
		t.Errorf("standard output is not empty: %q", &stdout)
	}
	if secrets.in(stdout.String() + stderr.String()) {
		t.Error("the output holds a part of a secret")
	}
}

// secrets are all runs of bytes that would give a part of a secret away.
type secrets map[[secretLen]byte]bool

const secretLen = 10

func (s secrets) add(secret string) {
	for i := range len(secret) - secretLen + 1 {
		s[[secretLen]byte([]byte(secret[i:]))] = true
	}
}

func (s secrets) in(output string) bool {
	for i := range len(output) - secretLen + 1 {
		if s[[secretLen]byte([]byte(output[i:]))] {
			return true
		}
	}
	return false
}

// makeFixtures makes the files and variables that the cases use, and returns
// what must not appear in any output.
func makeFixtures(ts *testscript.TestScript) secrets {
	f := &fixtures{ts: ts, secret: secrets{}}
	f.passwords()
	f.certificates()
	f.provisionerKeys()
	f.tokens()
	f.servers()
	f.configurations()
	for name, value := range map[string]string{
		"admin":         "--provisioner admin --provisioner-password-file ca/provisioner-password",
		"types":         "--offline --ca-config conf/types.json --password-file ca/password",
		"twenty_octets": strings.Repeat("5a", 20),
		"digits":        strings.Repeat("7", 200),
	} {
		ts.Setenv(name, value)
	}
	return f.secret
}

type fixtures struct {
	ts     *testscript.TestScript
	secret secrets
	admin  *jose.JSONWebKey // private key of the provisioner admin
}

func (f *fixtures) write(name string, content []byte) {
	file := f.ts.MkAbs(name)
	f.ts.Check(os.MkdirAll(filepath.Dir(file), 0o700))
	f.ts.Check(os.WriteFile(file, content, 0o600))
}

func (f *fixtures) writePEM(name, blockType string, der []byte) {
	f.write(name, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

func (f *fixtures) passwords() {
	for _, name := range []string{"ca/password", "ca/provisioner-password", "other/password", "other/provisioner-password"} {
		f.secret.add(strings.TrimSpace(f.ts.ReadFile(name)))
	}
	for _, name := range []string{"victim.key", "friend.key", "stranger.key", "encrypted.key"} {
		for line := range strings.Lines(f.ts.ReadFile(name)) {
			if line = strings.TrimSpace(line); !strings.Contains(line, " ") { // a line of base64
				f.secret.add(line)
			}
		}
	}
	f.ts.Setenv("password", strings.TrimSpace(f.ts.ReadFile("ca/password")))
	f.write("blank", []byte(" \n"))
}

// certificates makes certificates that step-ca would not issue, and other PEM.
func (f *fixtures) certificates() {
	issuer, err := certificateIn(f.ts.MkAbs("ca/certs/intermediate_ca.crt"))
	f.ts.Check(err)
	issuerKey, err := pemutil.Read(f.ts.MkAbs("ca/secrets/intermediate_ca_key"), pemutil.WithPasswordFile(f.ts.MkAbs("ca/password")))
	f.ts.Check(err)
	now := time.Now().Truncate(time.Second)
	for name, start := range map[string]time.Time{"expired": now.Add(-2 * time.Hour), "future": now.Add(time.Hour), "forged": now} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		f.ts.Check(err)
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		f.ts.Check(err)
		template := &x509.Certificate{
			SerialNumber: serial.SetBit(serial, 127, 1), Subject: pkix.Name{CommonName: name},
			NotBefore: start, NotAfter: start.Add(time.Hour),
		}
		parent, signer := *issuer, issuerKey
		if name == "forged" {
			parent.PublicKey, signer = key.Public(), key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, &parent, key.Public(), signer)
		f.ts.Check(err)
		f.writePEM(name+".crt", "CERTIFICATE", der)
		keyDER, err := x509.MarshalECPrivateKey(key)
		f.ts.Check(err)
		f.writePEM(name+".key", "EC PRIVATE KEY", keyDER)
		f.ts.Setenv(name, serial.String())
	}
	f.ts.Setenv("expired_at", now.Add(-time.Hour).UTC().Format(time.RFC3339))
	f.ts.Setenv("future_at", now.Add(time.Hour).UTC().Format(time.RFC3339))

	victim, err := certificateIn(f.ts.MkAbs("victim.crt"))
	f.ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(victim.PublicKey)
	f.ts.Check(err)
	f.writePEM("public.key", "PUBLIC KEY", public)
	f.writePEM("malformed.pem", "CERTIFICATE", victim.Raw[:100])
	key, err := pemutil.Read(f.ts.MkAbs("victim.key"))
	f.ts.Check(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: victim.Subject}, key)
	f.ts.Check(err)
	f.writePEM("victim.csr", "CERTIFICATE REQUEST", csr)
}

// provisionerKeys takes the keys of provisioners out of the CAs' configurations.
func (f *fixtures) provisionerKeys() {
	for name, ca := range map[string]string{"admin": "ca", "stranger": "other"} {
		var config struct {
			Authority struct {
				Provisioners []struct {
					EncryptedKey string
					Key          struct{ Kid string }
				}
			}
		}
		f.ts.Check(readJSON(f.ts.MkAbs(ca+"/config/ca.json"), &config))
		encrypted := config.Authority.Provisioners[0].EncryptedKey
		plain, err := jose.Decrypt([]byte(encrypted), jose.WithPasswordFile(f.ts.MkAbs(ca+"/provisioner-password")))
		f.ts.Check(err)
		f.write(name+".jwk", plain)
		key, err := jose.ParseKey(plain)
		f.ts.Check(err)
		var private struct{ D string }
		f.ts.Check(json.Unmarshal(plain, &private))
		f.secret.add(private.D)
		if name == "admin" {
			f.admin = key
			f.ts.Setenv("ops_kid", config.Authority.Provisioners[1].Key.Kid)
			f.write("encrypted.jwk", []byte(encrypted))
			public, err := json.Marshal(key.Public())
			f.ts.Check(err)
			f.write("public.jwk", public)
		}
	}
}

// tokens makes tokens that are wrong in one thing each, and a good one.
func (f *fixtures) tokens() {
	var (
		victim = f.ts.Getenv("victim")
		revoke = f.ts.Getenv("ca_url") + "/1.0/revoke"
		sum    = f.ts.Getenv("ca_fingerprint")
		now    = time.Now().Truncate(time.Second)
	)
	for name, token := range map[string]struct {
		subject, audience, sha string
		age                    time.Duration
	}{
		"token":           {victim, revoke, sum, 0},
		"hex_token":       {f.ts.Getenv("victim_hex"), revoke, sum, 0},
		"sign_token":      {victim, f.ts.Getenv("ca_url") + "/1.0/sign", sum, 0},
		"ssh_token":       {victim, f.ts.Getenv("ca_url") + "/1.0/ssh/revoke", sum, 0},
		"nowhere_token":   {victim, f.ts.Getenv("ca_url") + "/elsewhere", sum, 0},
		"silent_token":    {victim, "", "", 0},
		"expired_token":   {victim, revoke, sum, time.Hour},
		"early_token":     {victim, revoke, sum, 3 * time.Minute},
		"bad_sum_token":   {victim, revoke, "5a3a", 0},
		"http_token":      {victim, "http://127.0.0.1/1.0/revoke", sum, 0},
		"other_token":     {victim, "https://ca.example.com/1.0/revoke", "", 0},
		"other_sum_token": {victim, f.ts.Getenv("other_url") + "/1.0/revoke", f.ts.Getenv("other_fingerprint"), 0},
	} {
		made := now.Add(-token.age)
		claims := map[string]any{
			"sub": token.subject, "iss": "admin", "jti": rand.Text(),
			"iat": made.Unix(), "nbf": made.Unix(), "exp": made.Add(5 * time.Minute).Unix(),
		}
		if token.audience != "" {
			claims["aud"] = token.audience
		}
		if token.sha != "" {
			claims["sha"] = token.sha
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(f.admin.Algorithm), Key: f.admin.Key},
			new(jose.SignerOptions).WithType("JWT").WithHeader("kid", f.ts.Getenv("ca_kid")))
		f.ts.Check(err)
		raw, err := jose.Signed(signer).Claims(claims).CompactSerialize()
		f.ts.Check(err)
		f.secret.add(raw)
		f.ts.Setenv(name, raw)
	}
	f.ts.Setenv("token_expired_at", now.Add(5*time.Minute-time.Hour).UTC().Format(time.RFC3339))
	f.write("good.token", []byte(f.ts.Getenv("token")+"\n"))
	f.secret.add(f.ts.ReadFile("used.token"))
}

// servers starts what is not a CA.
func (f *fixtures) servers() {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	plain, page := httptest.NewServer(hello), httptest.NewTLSServer(hello)
	f.ts.Defer(plain.Close)
	f.ts.Defer(page.Close)
	f.writePEM("page.crt", "CERTIFICATE", page.Certificate().Raw)
	f.ts.Setenv("plain", strings.Replace(plain.URL, "http:", "https:", 1))
	f.ts.Setenv("page", page.URL)
	address := freeAddress()
	f.ts.Setenv("down_address", address)
	f.ts.Setenv("down", "https://"+address)
	_, port, _ := strings.Cut(strings.TrimPrefix(f.ts.Getenv("ca_url"), "https://"), ":")
	f.ts.Setenv("port", port)
}

// configurations makes variants of the CA's ca.json, each of them unfit.
func (f *fixtures) configurations() {
	type object = map[string]any
	dir := func(name string) string { return f.ts.MkAbs("conf/" + name) }
	for name, change := range map[string]func(config, authority, db object){
		"crl":             func(config, _, _ object) { config["crl"] = object{"enabled": true} },
		"no-root":         func(config, _, _ object) { config["root"] = f.ts.MkAbs("none") },
		"no-intermediate": func(config, _, _ object) { config["crt"] = f.ts.MkAbs("none") },
		"no-db":           func(config, _, _ object) { delete(config, "db") },
		"no-authority":    func(config, _, _ object) { delete(config, "authority") },
		"invalid":         func(config, _, _ object) { clear(config) },
		"ra":              func(_, authority, _ object) { authority["type"] = "stepcas" },
		"linked":          func(_, authority, _ object) { authority["deploymentType"] = "linked" },
		"types":           func(_, authority, _ object) { authority["provisioners"] = oneOfEachType(f.ts) },
		"db-gone":         func(_, _, db object) { db["dataSource"] = dir("gone") },
		"db-empty":        func(_, _, db object) { db["dataSource"] = dir("empty") },
		"db-foreign":      func(_, _, db object) { db["dataSource"] = f.ts.MkAbs("ca/config") },
		"db-file":         func(_, _, db object) { db["dataSource"] = dir("garbage.json") },
		"bbolt-dir":       func(_, _, db object) { db["type"] = "bbolt" },
		"db-type":         func(_, _, db object) { db["type"] = "oracle" },
		"bbolt-empty":     func(_, _, db object) { db["type"], db["dataSource"] = "bbolt", dir("empty.db") },
		"bbolt-garbage":   func(_, _, db object) { db["type"], db["dataSource"] = "bbolt", dir("garbage.json") },
		"unknown":         func(_, _, db object) { db["dataSource"] = dir("unknown.db") },
		"expired":         func(_, _, db object) { db["dataSource"] = dir("expired.db") },
		"remote": func(_, authority, db object) {
			authority["enableAdmin"], db["dataSource"] = true, dir("remote.db")
		},
	} {
		config := object{}
		f.ts.Check(readJSON(f.ts.MkAbs("ca/config/ca.json"), &config))
		change(config, config["authority"].(object), config["db"].(object))
		content, err := json.Marshal(config)
		f.ts.Check(err)
		f.write("conf/"+name+".json", content)
	}
	f.write("conf/garbage.json", []byte("garbage\n"))
	f.write("conf/empty.db", nil)
	f.ts.Check(os.Mkdir(dir("empty"), 0o700))
	for _, name := range databaseCopies {
		f.ts.Check(os.CopyFS(dir(name+".db"), os.DirFS(f.ts.MkAbs("stopped.db"))))
	}
}

// oneOfEachType are provisioners that cannot authorize a revocation.
func oneOfEachType(ts *testscript.TestScript) (all []map[string]any) {
	root := []byte(ts.ReadFile("ca/certs/root_ca.crt"))
	for name, more := range map[string]map[string]any{
		"OIDC":   {"clientID": "id", "configurationEndpoint": "https://127.0.0.1:1"},
		"ACME":   nil,
		"X5C":    {"roots": root},
		"SSHPOP": nil,
		"K8sSA":  {"publicKeys": root},
		"AWS":    nil,
		"GCP":    nil,
		"Azure":  {"tenantId": "id"},
		"SCEP":   nil,
		"Nebula": {"roots": root},
	} {
		p := map[string]any{"type": name, "name": "a-" + strings.ToLower(name)}
		maps.Copy(p, more)
		all = append(all, p)
	}
	return all
}
