package database

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	nosqldb "github.com/smallstep/nosql/database"
)

// fileTypes are the types of databases in files.
var fileTypes = []string{nosql.BadgerV1Driver, nosql.BadgerV2Driver, nosql.BBoltDriver}

// certificate returns the serial number and what stands for the DER of the
// certificate number i.
func certificate(i int) (serial string, der []byte) {
	source := rand.NewPCG(1, uint64(i))
	random := rand.New(source)
	number := new(big.Int).Lsh(big.NewInt(1), 127)
	number.Add(number, new(big.Int).SetUint64(random.Uint64())).Add(number, new(big.Int).Lsh(new(big.Int).SetUint64(random.Uint64()>>1), 64))
	der = make([]byte, 600+random.IntN(900))
	for j := range der {
		der[j] = byte(random.Uint32())
	}
	return number.String(), der
}

func isRevoked(i int) bool { return i%7 == 3 }
func hasData(i int) bool   { return i%5 != 4 }

// store stores certificates as step-ca does.
func store(to nosqldb.DB, from, until int) error {
	for i := from; i < until; i++ {
		serial, der := certificate(i)
		tx := new(nosqldb.Tx)
		tx.Set([]byte(certsTable), []byte(serial), der)
		if hasData(i) {
			tx.Set([]byte(certsDataTable), []byte(serial), fmt.Appendf(nil, `{"provisioner":{"id":"id%d","name":"name%d","type":"JWK"}}`, i%3, i%3))
		}
		if isRevoked(i) {
			tx.Set([]byte(revokedTable), []byte(serial), []byte("{}"))
		}
		if err := to.Update(tx); err != nil {
			return err
		}
	}
	return nil
}

// createTables makes the tables of step-ca that matter here.
func createTables(in nosqldb.DB, without ...string) (err error) {
	for _, table := range []string{sshHostsTable, crlTable, certsTable, certsDataTable, revokedTable, "zzz"} {
		if !slices.Contains(without, table) {
			err = errors.Join(err, in.CreateTable([]byte(table)))
		}
	}
	return err
}

// filled makes a database with n certificates.
func filled(t testing.TB, kind string, n int, more ...func(nosqldb.DB) error) *db.Config {
	t.Helper()
	cfg := &db.Config{Type: kind, DataSource: filepath.Join(t.TempDir(), "db")}
	made, err := nosql.New(cfg.Type, cfg.DataSource)
	if err == nil {
		err = errors.Join(createTables(made), store(made, 0, n))
	}
	for _, add := range more {
		err = errors.Join(err, add(made))
	}
	if err := errors.Join(err, made.Close()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A seen is what Map has shown of one certificate.
type seen struct {
	serial, der, id, name string
	revoked               bool
	err                   error
}

func look(i *Issued) (seen, bool) {
	id, name, err := i.Provisioner()
	return seen{i.Serial, string(i.DER), id, name, i.Revoked, errors.Join(i.Err, err)}, true
}

// readAll reads all certificates.
func readAll(t testing.TB, s *Snapshot) map[string]seen {
	t.Helper()
	all := map[string]seen{}
	for c, err := range Map(t.Context(), s, look) {
		if err := errors.Join(err, c.err); err != nil {
			t.Fatal(err)
		}
		if _, twice := all[c.serial]; twice {
			t.Errorf("%s comes twice", c.serial)
		}
		all[c.serial] = c
	}
	return all
}

// compare makes sure that a snapshot has n certificates, and all of them.
func compare(t testing.TB, s *Snapshot, n int) {
	t.Helper()
	all := readAll(t, s)
	if len(all) != n {
		t.Errorf("%d certificates, want %d", len(all), n)
	}
	for i := range n {
		serial, der := certificate(i)
		want := seen{serial: serial, der: string(der), revoked: isRevoked(i)}
		if hasData(i) {
			want.id, want.name = fmt.Sprintf("id%d", i%3), fmt.Sprintf("name%d", i%3)
		}
		if got := all[serial]; got != want {
			t.Fatalf("%d: %.60q, want %.60q", i, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
}

var (
	beside  = Reading{Beside: true, Quiet: true, Timeout: 10 * time.Second}
	stopped = Reading{Quiet: true, Timeout: 10 * time.Second}
)

// TestRead reads each type of database in files, beside the CA and without it.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		for _, how := range []Reading{beside, stopped} {
			for _, n := range []int{0, 1, 255, 256, 257, 2000} {
				if how.Beside && kind == nosql.BBoltDriver {
					continue
				}
				t.Run(fmt.Sprintf("%s, %d, beside %t", kind, n, how.Beside), func(t *testing.T) {
					t.Parallel()
					s, err := Read(t.Context(), filled(t, kind, n), how)
					if err != nil {
						t.Fatal(err)
					}
					compare(t, s, n)
					compare(t, s, n)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestBBoltBeside shows that bbolt is not opened beside a CA.
func TestBBoltBeside(t *testing.T) {
	t.Parallel()
	_, err := Read(context.Background(), filled(t, nosql.BBoltDriver, 1), beside)
	if err == nil || !strings.Contains(err.Error(), "bbolt") {
		t.Error(err)
	}
}
