//go:build bench && unix

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
)

// The most revocations that the plugin has under way at the same time, unless
// --concurrency says otherwise: online, and offline on a database in files.
const onlineConcurrency, filesConcurrency = 64, 512

// TestBench runs the scripts in testdata/bench, which have a few commands more
// than the others.
func TestBench(t *testing.T) {
	params := scriptParams("testdata/bench")
	params.Cmds["ratio"] = cmdRatio
	params.Cmds["bare-client"] = cmdBareClient
	params.Cmds["bare-authority"] = cmdBareAuthority
	params.Cmds["pairs"] = cmdPairs
	params.Cmds["choosing"] = cmdChoosing
	params.Cmds["one-crl"] = cmdOneCRL
	params.Cmds["by-host"] = cmdByHost
	testscript.Run(t, params)
}

func cmdRatio(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: ratio NAME LIMIT RUNS OURS THEIRS")
	}
	limit, err := strconv.ParseFloat(args[1], 64)
	ts.Check(err)
	runs, err := strconv.Atoi(args[2])
	ts.Check(err)
	times := [2][]time.Duration{}
	for range runs {
		for i, command := range args[3:] {
			serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
			ts.Check(err)
			ts.Setenv("serial", serial.String())
			words := strings.Fields(strings.ReplaceAll(command, "SERIAL", serial.String()))
			if strings.HasSuffix(command, ".sh") {
				words = []string{"sh", "-e", command}
			}
			start := time.Now()
			ts.Check(ts.Exec(words[0], words[1:]...))
			times[i] = append(times[i], time.Since(start))
		}
	}
	ours, theirs := median(times[0]), median(times[1])
	ratio := float64(ours) / float64(theirs)
	fmt.Printf("%-45s %8.1f ms / %8.1f ms = %.2f (at most %.2f)\n", args[0], ms(ours), ms(theirs), ratio, limit)
	if ratio > limit {
		ts.Fatalf("%s: the ratio is %.2f, more than %.2f", args[0], ratio, limit)
	}
}

// A revocation is one request of a bare client.
type revocation struct{ Serial, Token string }

// newSigner returns what makes tokens for serial numbers, with the key in a file.
func newSigner(keyFile, audience string) (func(serial string) (string, error), error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := jose.ParseKey(data)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	return func(serial string) (string, error) {
		now := time.Now().Unix()
		claims := map[string]any{"iss": "admin", "sub": serial, "aud": audience, "jti": rand.Text(), "iat": now, "nbf": now, "exp": now + 300}
		return jose.Signed(signer).Claims(claims).CompactSerialize()
	}, nil
}

// signed makes tokens for N new serial numbers.
func signed(keyFile, audience string, n int) ([]revocation, error) {
	sign, err := newSigner(keyFile, audience)
	if err != nil {
		return nil, err
	}
	list := make([]revocation, n)
	for i, serial := range newSerials(n) {
		token, err := sign(serial)
		if err != nil {
			return nil, err
		}
		list[i] = revocation{serial, token}
	}
	return list, nil
}

// concurrently calls a function for each revocation, at most concurrency of them
// at the same time, and returns how long that takes.
func concurrently(concurrency int, list []revocation, revoke func(revocation) error) (time.Duration, error) {
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, concurrency)
	start := time.Now()
	for i := range errs {
		group.Go(func() {
			for n := next.Add(1); n <= int64(len(list)); n = next.Add(1) {
				errs[i] = errors.Join(errs[i], revoke(list[n-1]))
			}
		})
	}
	group.Wait()
	return time.Since(start), errors.Join(errs...)
}

// timed runs the plugin on N new serial numbers, which a provisioner authorizes. It
// returns how long that takes from its start to its end, and how long the revocations
// do, as it says itself.
func timed(ts *testscript.TestScript, n int, args ...string) (all, revocations time.Duration) {
	return timedAs(ts, n, append(args, "--provisioner-password-file", "ca/provisioner-password")...)
}

// timedByHost is timed, offline, and the host authorizes.
func timedByHost(ts *testscript.TestScript, n int) (all, revocations time.Duration) {
	return timedAs(ts, n, "--offline", "--allow-unknown", "--ca-password-file", "ca/password")
}

func timedAs(ts *testscript.TestScript, n int, args ...string) (all, revocations time.Duration) {
	args = append(args, "--force", "--from", listOfSerials(ts, n))
	start := time.Now()
	ts.Check(ts.Exec("step-revoke-plugin", args...))
	all = time.Since(start)
	said := regexp.MustCompile(`not attempted; (\S+), `).FindStringSubmatch(ts.ReadFile("stderr"))
	if said == nil {
		ts.Fatalf("there is no summary")
	}
	revocations, err := time.ParseDuration(said[1])
	ts.Check(err)
	return all, revocations
}

// turns reads the three arguments LEAST N ROUNDS.
func turns(ts *testscript.TestScript, args []string) (least float64, n, rounds int) {
	if len(args) != 3 {
		ts.Fatalf("usage: LEAST N ROUNDS")
	}
	least, err := strconv.ParseFloat(args[0], 64)
	ts.Check(err)
	n, err = strconv.Atoi(args[1])
	ts.Check(err)
	rounds, err = strconv.Atoi(args[2])
	ts.Check(err)
	return least, n, rounds
}

// atLeast compares how long the plugin and another program take to revoke n
// certificates. Each round runs theirs, ours twice, and theirs again, because the
// CA's database gets slower with each certificate. The ratio is the rounds' median.
func atLeast(ts *testscript.TestScript, name string, least float64, n, rounds int, ours, theirs func() time.Duration) {
	var we, they []time.Duration
	var ratios []float64
	for range rounds {
		their, our := theirs(), ours()+ours()
		their += theirs()
		we, they, ratios = append(we, our/2), append(they, their/2), append(ratios, float64(their)/float64(our))
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	fmt.Printf("%-45s %8.0f /s / %8.0f /s = %.2f (at least %.2f; all: %.2f)\n", name,
		float64(n)/median(we).Seconds(), float64(n)/median(they).Seconds(), ratio, least, ratios)
	if ratio < least {
		ts.Fatalf("%s: the ratio is %.2f, less than %.2f", name, ratio, least)
	}
}

func cmdBareClient(ts *testscript.TestScript, _ bool, args []string) {
	least, n, rounds := turns(ts, args)
	ca := current(ts)
	root, err := certificateIn(filepath.Join(ca.dir, "certs", "root_ca.crt"))
	ts.Check(err)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	atLeast(ts, "online, against a bare client", least, n, rounds, func() time.Duration {
		_, revocations := timed(ts, n)
		return revocations
	}, func() time.Duration {
		list, err := signed(filepath.Join(ca.dir, "provisioner-key"), "https://"+ca.address+"/1.0/revoke", n)
		ts.Check(err)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
		post := func(r revocation) error {
			body, err := json.Marshal(&api.RevokeRequest{Serial: r.Serial, OTT: r.Token, Passive: true})
			if err != nil {
				return err
			}
			resp, err := client.Post("https://"+ca.address+"/1.0/revoke", "application/json", bytes.NewReader(body))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			return err
		}
		ts.Check(post(list[0])) // one connection for all
		took, err := concurrently(onlineConcurrency, list[1:], post)
		ts.Check(err)
		client.CloseIdleConnections()
		return took
	})
}

func cmdBareAuthority(ts *testscript.TestScript, _ bool, args []string) {
	least, n, rounds := turns(ts, args)
	atLeast(ts, "offline, against the bare authority", least, n, rounds, func() time.Duration {
		_, revocations := timed(ts, n, "--offline", "--allow-unknown")
		return revocations
	}, func() time.Duration {
		ts.Check(ts.Exec("call-authority", strconv.Itoa(n))) // with a heap as new as the plugin's
		took, err := time.ParseDuration(strings.TrimSpace(ts.ReadFile("stdout")))
		ts.Check(err)
		return took
	})
}

func cmdByHost(ts *testscript.TestScript, _ bool, args []string) {
	least, n, rounds := turns(ts, args)
	atLeast(ts, "offline by the host, against tokens", least, n, rounds, func() time.Duration {
		_, revocations := timedByHost(ts, n)
		return revocations
	}, func() time.Duration {
		_, revocations := timed(ts, n, "--offline", "--allow-unknown")
		return revocations
	})
}

func cmdOneCRL(ts *testscript.TestScript, _ bool, args []string) {
	least, n, rounds := turns(ts, args)
	const entries, few = 10_000, 20
	timedByHost(ts, entries)
	atLeast(ts, "offline with CRLs, against one a revocation", least, n, rounds, func() time.Duration {
		all, _ := timedByHost(ts, n)
		return all
	}, func() time.Duration {
		ts.Check(ts.Exec("call-authority", strconv.Itoa(few)))
		took, err := time.ParseDuration(strings.TrimSpace(ts.ReadFile("stdout")))
		ts.Check(err)
		return took * time.Duration(n) / few
	})
}

func init() { programs["call-authority"] = callAuthorityMain }

// callAuthorityMain is the program call-authority: it opens the CA in ./ca, and
// revokes N serial numbers there with tokens that it makes as it goes. It prints
// how long that takes.
func callAuthorityMain() {
	check := func(err error) {
		if err != nil {
			refuse(err)
		}
	}
	n, err := strconv.Atoi(os.Args[1])
	check(err)
	ca, err := config.LoadConfiguration("ca/config/ca.json")
	check(err)
	password, err := os.ReadFile("ca/password")
	check(err)
	a, err := authority.New(ca, authority.WithPassword(bytes.TrimSpace(password)), authority.WithQuietInit())
	check(err)
	sign, err := newSigner("ca/provisioner-key", ca.GetAudiences().Revoke[1])
	check(err)
	list := make([]revocation, n)
	for i, serial := range newSerials(n) {
		list[i].Serial = serial
	}
	ctx := provisioner.NewContextWithMethod(context.Background(), provisioner.RevokeMethod)
	took, err := concurrently(filesConcurrency, list, func(r revocation) error {
		token, err := sign(r.Serial)
		if err != nil {
			return err
		}
		if _, err := a.Authorize(ctx, token); err != nil {
			return err
		}
		return a.Revoke(ctx, &authority.RevokeOptions{Serial: r.Serial, OTT: token, PassiveOnly: true})
	})
	check(err)
	check(a.Shutdown())
	fmt.Println(took)
}

func cmdPairs(ts *testscript.TestScript, _ bool, args []string) {
	least, n, rounds := turns(ts, args)
	const pairs = 80
	atLeast(ts, "online, against xargs -P 8 over step's pair", least, n, rounds, func() time.Duration {
		all, _ := timed(ts, n)
		return all
	}, func() time.Duration {
		listOfSerials(ts, pairs)
		start := time.Now()
		ts.Check(ts.Exec("sh", "-ec", `xargs -P 8 -n 1 sh pair.sh <serials`))
		return time.Since(start) * time.Duration(n) / pairs
	})
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
