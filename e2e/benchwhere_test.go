//go:build bench && unix

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v2"
	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	programs["fill-database"] = fillDatabaseMain
	programs["read-database"] = readDatabaseMain
}

// A storage is where the CA in $STEPPATH keeps its certificates.
type storage struct{ Type, DataSource string }

func openStorage() (s storage, err error) {
	var config struct{ DB storage }
	err = readJSON(filepath.Join(os.Getenv("STEPPATH"), "config", "ca.json"), &config)
	return config.DB, err
}

// certsPrefix is before the serial number, with its length, in the keys of badger.
const certsPrefix = "\x0a\x00x509_certs"

func keyOf(serial string) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte(certsPrefix), uint16(len(serial))), serial...)
}

// fillDatabaseMain is the program fill-database: it stores N certificates in the
// database of the CA in $STEPPATH, which is not running. The one in the middle is for needle.example, and each 20th is from ci.
func fillDatabaseMain() {
	n, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = fillDatabase(n)
	}
	if err != nil {
		refuse(err)
	}
}

func fillDatabase(n int) error {
	s, err := openStorage()
	if err != nil {
		return err
	}
	if s.Type == "postgresql" {
		conn, err := pgx.Connect(context.Background(), s.DataSource)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		next, stop := iter.Pull2(certificates(n))
		defer stop()
		_, err = conn.CopyFrom(context.Background(), pgx.Identifier{"x509_certs"}, []string{"nkey", "nvalue"}, pgx.CopyFromFunc(func() ([]any, error) {
			serial, der, more := next()
			if !more {
				return nil, nil
			}
			return []any{[]byte(serial), der}, nil
		}))
		return err
	}
	db, err := badger.Open(badger.DefaultOptions(s.DataSource).WithLogger(nil))
	if err != nil {
		return err
	}
	batch := db.NewWriteBatch()
	for serial, der := range certificates(n) {
		if err := batch.Set(keyOf(serial), der); err != nil {
			return err
		}
	}
	return errors.Join(batch.Flush(), db.Close())
}

// certificates makes certificates as step-ca makes them.
func certificates(n int) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var keys []*ecdsa.PrivateKey
		for range 16 {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				panic(err)
			}
			keys = append(keys, key)
		}
		issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "Example Intermediate CA", Organization: []string{"Example"}}, SubjectKeyId: make([]byte, 20)}
		for i, serial := range newSerials(n) {
			name, provisioner := fmt.Sprintf("host-%d.example.com", i), "admin"
			if i == n/2 {
				name = "needle.example"
			}
			if i%20 == 0 {
				provisioner = "ci"
			}
			template := &x509.Certificate{
				Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Duration(i) * time.Second), NotAfter: time.Now().Add(24 * time.Hour),
				KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
				ExtraExtensions: []pkix.Extension{provisionerExtension(provisioner)},
			}
			template.SerialNumber, _ = new(big.Int).SetString(serial, 10)
			der, err := x509.CreateCertificate(rand.Reader, template, issuer, &keys[i%16].PublicKey, keys[0])
			if err != nil {
				panic(err)
			}
			if !yield(serial, der) {
				return
			}
		}
	}
}

// provisionerExtension is that of step-ca (authority/provisioner/extension.go).
func provisionerExtension(name string) pkix.Extension {
	value, err := asn1.Marshal(struct {
		Type               int
		Name, CredentialID []byte
	}{1, []byte(name), []byte("RJLM1CvmWlUEMMQuR7EXAMPLEonlyNoRealKeyID00")})
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 1}, Value: value}
}

// readDatabaseMain is the program read-database: it reads every certificate in the
// database of the CA in $STEPPATH, and does nothing with it but count.
func readDatabaseMain() {
	n, err := readDatabase()
	if err != nil {
		refuse(err)
	}
	fmt.Println(n)
}

func readDatabase() (n int, err error) {
	s, err := openStorage()
	if err != nil {
		return 0, err
	}
	if s.Type == "postgresql" {
		conn, err := pgx.Connect(context.Background(), s.DataSource)
		if err != nil {
			return 0, err
		}
		defer conn.Close(context.Background())
		rows, err := conn.Query(context.Background(), "SELECT nkey, nvalue FROM x509_certs")
		if err != nil {
			return 0, err
		}
		for rows.Next() {
			if len(rows.RawValues()[1]) > 0 {
				n++
			}
		}
		return n, rows.Err()
	}
	db, err := badger.Open(badger.DefaultOptions(s.DataSource).WithLogger(nil).WithReadOnly(true))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return n, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		prefix := []byte(certsPrefix)
		for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
			if err := it.Item().Value(func(der []byte) error {
				if len(der) > 0 {
					n++
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// cmdChoosing compares how long the plugin takes to choose with how long it takes
// to read the CA's database and do nothing, and their memory.
func cmdChoosing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: choosing NAME LIMIT RUNS ARGS...")
	}
	limit, err := strconv.ParseFloat(args[1], 64)
	ts.Check(err)
	runs, err := strconv.Atoi(args[2])
	ts.Check(err)
	commands := [2][]string{append([]string{"step-revoke-plugin", "--dry-run", "--format", "json"}, args[3:]...), {"read-database"}}
	var times [2][]time.Duration
	var memory [2]int64 // MB
	for range runs {
		for i, words := range commands {
			start := time.Now()
			ts.Check(ts.Exec("peak", words...))
			times[i] = append(times[i], time.Since(start))
			peak, err := strconv.ParseInt(strings.TrimSpace(ts.ReadFile("stdout")), 10, 64)
			ts.Check(err)
			memory[i] = max(memory[i], peak)
		}
	}
	const mostMemory = 120
	ours, theirs := median(times[0]), median(times[1])
	ratio := float64(ours) / float64(theirs)
	fmt.Printf("%-45s %8.1f ms / %8.1f ms = %.2f (at most %.2f); %d MB / %d MB (at most %d more)\n",
		args[0], ms(ours), ms(theirs), ratio, limit, memory[0], memory[1], mostMemory)
	if ratio > limit || memory[0] > memory[1]+mostMemory {
		ts.Fatalf("%s: too slow, or too large", args[0])
	}
}
