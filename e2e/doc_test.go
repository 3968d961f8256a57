//go:build unix

// Package e2e holds the sessions of a user: scripts that run the plugin, as a
// program of its own, with the real step and step-ca.
//
// The scripts are in testdata, in the language of testscript (see its
// documentation) plus the commands below. A script starts without a controlling
// terminal, in $WORK, with HOME, PATH, TMPDIR and STEPPATH=$WORK/ca. PATH holds
// step, step-ca, the plugin, which is also $plugin, and the programs below. $tools
// is the directory of step and step-ca.
//
// A CA:
//
//	ca init [crl] [remote] [ssh] [stock] [db=badger|bbolt|postgresql|mysql|none] [ra=NAME] [version=VERSION]
//	    Make a CA with step ca init. With crl it makes a new CRL at each revocation;
//	    remote is remote management; with ssh it signs SSH certificates too. The database is Badger v2, unless db= says
//	    otherwise: badger is Badger v1, and postgresql and mysql are a database of
//	    its own on a server that belongs to this test process; they set $database,
//	    its name, and $database_address and $database_password of the server. The
//	    CA's directory is $WORK/ca, with the files password (of the CA's keys),
//	    provisioner-password (of the provisioner admin) and, without remote,
//	    provisioner-key (the key itself, which saves the time that passwords take).
//	    Sets $ca_url, $ca_fingerprint and $ca_kid. With ra= it is a registration
//	    authority of the CA with this name, which must run. With version= it runs
//	    another step-ca, which tools/VERSION/go.mod pins. With stock it
//	    has issued the certificates in testdata/where/certificates, has the
//	    provisioners in it, and sets $NAME and $NAME_hex of all; NAME.crt, with the
//	    intermediate certificate, and NAME.key are in $WORK.
//	ca start [options of init]
//	    Start step-ca and return when it serves; its log is $WORK/ca.log.
//	ca stop, ca restart
//	    Have step-ca shut down in good order, as before an offline revocation.
//	ca kill
//	    Kill step-ca.
//	ca use NAME
//	    Go on with another CA, in $WORK/NAME; its variables are $NAME_url, ….
//	amend FILE
//	    Merge the JSON in FILE into ca.json: objects are merged, arrays are
//	    appended, and null removes. It may have $VARIABLES.
//	give USER
//	    Make the CA's files USER's, and step-ca a program that USER runs.
//
// Certificates:
//
//	issue NAME... [flags of step ca certificate]
//	    Issue NAME.crt with NAME.key; sets $NAME to its serial number, and
//	    $NAME_hex to the same in hexadecimal.
//	forged NAME VICTIM
//	    Make NAME.crt, a certificate with the serial number of VICTIM.crt that
//	    nobody but its own key NAME.key has signed, and that expires in a minute.
//	expired NAME AGO [LIKE]
//	    Make NAME.crt, a certificate that expired some time ago, as the CA would
//	    have issued it then: signed with the CA's key and stored in its database.
//	    Sets $NAME. With LIKE it is of the provisioner of LIKE.crt.
//	refused NAME..., renews NAME...
//	    The CA refuses to renew NAME.crt because it is revoked; it renews it.
//	serials FILE N
//	    Write N new serial numbers, of certificates that were never issued, to a
//	    file, a line each.
//
// What the CA holds:
//
//	[!] crl SERIAL [CODE]
//	    The CA's CRL, whose signature is verified, holds the serial number, with
//	    this reason code (0: without one; in the CRLs of step-ca before 0.30, none
//	    has one). Of a stopped CA the one in its database counts, which nobody has
//	    renewed since.
//	crl-check NAME SAYS
//	    "openssl verify -crl_check" says this of NAME.crt and that CRL: OK, or an
//	    error such as "certificate revoked".
//	crl-number N
//	    The CRL has this number, which each new CRL raises by one.
//	crl-frame
//	    The CRL's issuer, the kind of its signature, how long it is good, and its
//	    extensions, but for the number, become stdout.
//	[!] recorded SERIAL
//	    The CA's database holds a revocation; its JSON becomes stdout.
//	all-listed LIST
//	    The CA's CRL holds every serial number in the list.
//	[!] all-recorded LIST
//	    The CA's database holds a revocation of every serial number in the list.
//	snapshot, unchanged
//	    Remember the CA's database; it is what it was (CRLs apart, which step-ca
//	    renews when it starts). Like recorded, they stop a running CA meanwhile,
//	    because its database can be read by one process only.
//	query SQL
//	    Ask the CA's database server; the rows of the answer become stdout.
//	foreign badger|bbolt PATH
//	    Make a database that is not one of step-ca.
//
//	answers [FLAGS...]
//	    Ask the questions in testdata/where/questions in dry runs of the plugin with
//	    these flags. The answers must be those that stand there.
//	only-recorded [NAME...]
//	    The CA's database holds revocations of these certificates of the stock, of
//	    those that were revoked before, and no others.
//	only-refused [NAME...]
//	    The CA renews all certificates of the stock but these, and those that were
//	    revoked or stuck before.
//	loaded ca|badger N ARGS...
//	    Have the CA issue certificates all the time, or write them to the Badger
//	    directory $WORK/churn, and run the plugin N times with these arguments, a dry
//	    run of a question. It must each time look at all that were issued before.
//	cut-short KILL|TERM TIMES ARGS...
//	    Run the plugin as often, with the signal at a random moment. After KILL
//	    others must not be able to read what it leaves in $TMPDIR, and after TERM
//	    nothing may be left.
//	put TABLE/KEY FILE
//	    Store what is in a file in the database of a stopped CA.
//
// What the plugin prints and writes:
//
//	exits CODE PROGRAM [args...]
//	    Like exec, but the exit code must be this one.
//	objects [STATUS...]
//	    The last command has printed one object for each status, in this order,
//	    and nothing else.
//	await FILE REGEXP
//	    Wait until the file holds a match.
//	lines FILE N
//	    Wait until the file has so many lines.
//	journaled LIST JOURNAL
//	    The journal has a header, and says of each serial number in the list exactly
//	    once that it is revoked.
//	killed TIMES JOURNAL PROGRAM [args...]
//	    Run a program as often, and kill it each time when it has written some more
//	    lines to its journal, a random number that leaves something to do.
//	memory MOST N ARGS...
//	    Run the plugin with these arguments on N serial numbers; it may take MOST
//	    megabytes of memory.
//
// What breaks between the plugin and the CA:
//
//	proxy NAME [http1]
//	    Start a reverse proxy in front of the CA, which must run: it gives the
//	    proxy a certificate. Sets $NAME_url, and $NAME_alias for the same with a
//	    host name that is none of the CA's. Requests appear in $WORK/NAME.log.
//	    One that has left comes back.
//	relay NAME [ADDRESS]
//	    Start a TCP proxy in front of the CA, or of what listens at the address.
//	    Sets $NAME_url and $NAME_address.
//	faults NAME WHAT FAULT...
//	    The next requests for WHAT, the end of a path like revoke, meet these
//	    faults in order; with ... as the last word the last one stays. Of a relay
//	    WHAT is connection. Faults of a proxy are
//	        pass        none
//	        503, …      answer with this status, in HTML; 503:2 adds a Retry-After
//	                    in seconds, 503@2 one with a date
//	        spoil       let the CA answer, and answer 500
//	        truncate    let the CA answer, and hand on half of it
//	        lose        let the CA answer, and reset the connection
//	        late        let the CA answer, and hand on nothing
//	        hang        hand on nothing, and never answer
//	        reset       reset the connection
//	        hold        wait for "faults NAME held go", and hand on then
//	        leave       let the CA answer, and refuse all connections from then on
//	        chaos       lose one reply in five, reset the connection of one request
//	                    in ten, and take up to 10 ms more than the CA
//	    and those of a relay pass, reset, silent (accept and say nothing), lose
//	    (reset when the CA's log shows that it has answered a revocation), garble
//	    (send the CA something that is no TLS, together with the request),
//	    stop=TEXT (hand on nothing any more from where the client sends the text)
//	    and hold=TEXT (wait there for "faults NAME held go" each time).
//	full NAME
//	    Listen on a loopback address, $NAME, that answers no connection attempt.
//	serve NAME DIR
//	    Serve the files in a directory over HTTP, at $NAME_url.
//	listen NAME
//	    Listen on a loopback address, $NAME, and end each connection.
//	[!] contacted NAME
//	    Somebody connected to $NAME.
//
// The documents:
//
//	block DOCUMENT TITLE NUMBER FILE [OLD=>NEW...]
//	    Write a block of code of a document to a file: the NUMBERth of the section
//	    with the title. OLD, which must be in it, is replaced.
//	parts FILE.sh N
//	    Write the parts of a block to files of their own, FILE1.sh, …: there are N,
//	    with empty lines between them.
//	systemd
//	    Let "systemctl stop step-ca" and "systemctl start step-ca" do that to the CA.
//	job FILE
//	    Read the one job in a file of GitHub Actions or GitLab CI, and write each
//	    of its steps that are shell as a script with the job's variables:
//	    step1.sh, …; ${{ vars.X }} and ${{ inputs.X }} are $X, ${{ secrets.X }} what
//	    the file $X holds.
//	archive
//	    Make the archive of a release out of the plugin, whose checksum is $sha256,
//	    and stand-ins for curl and wget that download it from where releases are.
//	image
//	    Lay out the container image that the Dockerfile makes in $WORK/image; the
//	    files entrypoint and user hold what it says of these.
//	[!] pod MANIFEST
//	    Read a manifest with a Job of Kubernetes as strictly as Kubernetes does, and
//	    write the script pod.sh, which runs the Job's container in the way of a node,
//	    with that image. What the cluster has is in $WORK/cluster/KIND/NAME.
//
// The programs, which run in processes of their own:
//
//	exits CODE at-terminal [-piped] DIALOGUE PROGRAM [args...]
//	    Run a program at a pseudo-terminal of its own, with that as its standard
//	    streams, or -piped with only /dev/tty left of it. Lines in the file
//	    DIALOGUE are "? REGEXP" (wait for it to appear), "> TEXT" (type it, with
//	    $VARIABLES, and press Enter), "< FILE" (type what a file holds, and press
//	    Enter), "= KEYS" (type exactly this quoted Go string), "! TERM" (send the
//	    signal) and "!! TERM" (send it to all that the program has started). What
//	    was on the terminal becomes stdout, without control characters.
//	exits CODE upon FILE REGEXP SIGNAL PROGRAM [args...]
//	    Run a program, and send it the signal when the file, or its standard error
//	    for -, holds a match. It must end within 5 seconds then.
//	exits CODE within SECONDS PROGRAM [args...]
//	    Run a program, which must not take longer.
//	exec peak PROGRAM [args...]
//	    Run a program without its standard output, and print the most memory it
//	    had, in MB.
//
// And conditions: postgresql and mysql (a server can be started), netns
// (programs can be run without a network), tmpfs (a file system can be mounted),
// root, sudo. With $CI set the first four are true, or an error. step-ca:0.30 is
// true if step-ca is of version 0.30 or later; what depends on it says why.
//
// For benchmarks, with the build tag bench:
//
//	ratio NAME LIMIT RUNS OURS THEIRS
//	    Run the commands OURS and THEIRS in turn, each with a new serial number,
//	    RUNS times each. A command is a program with its arguments, SERIAL among
//	    them, or a shell script, NAME.sh, which finds it in $serial. The median
//	    of OURS may be at most LIMIT times that of THEIRS: a ratio within one
//	    run, which other machines can be held to.
//	bare-client LEAST N ROUNDS
//	    Revoke N serial numbers online in one run, and N others with a client that
//	    does nothing but post tokens that were signed beforehand, at the same
//	    concurrency: the CA's ceiling. In ROUNDS turns, an odd number; we must reach
//	    LEAST times its rate. What a run takes before and after the revocations,
//	    the other benchmarks measure.
//	bare-authority LEAST N ROUNDS
//	    The same offline, against calls of the authority in a process of its own,
//	    which makes a token for each.
//	by-host LEAST N ROUNDS
//	    The same offline, by the host against a provisioner's tokens.
//	one-crl LEAST N ROUNDS
//	    The same offline, from start to end and with a CRL of 10,000 entries, against
//	    calls of the authority, which makes such a CRL for each.
//	pairs LEAST N ROUNDS
//	    The same online, per revocation, against 80 pairs of step ca token and step
//	    ca revoke that xargs -P 8 runs.
//
// Tests that have one script of their own add commands for it: see runSession.
package e2e
