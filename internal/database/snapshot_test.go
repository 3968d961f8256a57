package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	nosqldb "github.com/smallstep/nosql/database"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
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

// store stores certificates as step-ca does, but many at once.
func store(to nosqldb.DB, from, until int) error {
	tx := new(nosqldb.Tx)
	for i := from; i < until; i++ {
		serial, der := certificate(i)
		tx.Set([]byte(certsTable), []byte(serial), der)
		if hasData(i) {
			tx.Set([]byte(certsDataTable), []byte(serial), fmt.Appendf(nil, `{"provisioner":{"id":"id%d","name":"name%d","type":"JWK"}}`, i%3, i%3))
		}
		if isRevoked(i) {
			tx.Set([]byte(revokedTable), []byte(serial), []byte("{}"))
		}
		if len(tx.Operations) > 200 {
			if err := to.Update(tx); err != nil {
				return err
			}
			tx = new(nosqldb.Tx)
		}
	}
	return to.Update(tx)
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
	cfg := filled(t, nosql.BBoltDriver, 1)
	if err := os.WriteFile(cfg.DataSource, []byte("not bbolt"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Read(t.Context(), cfg, beside)
	if want := "the CA's database is of the type bbolt, which cannot be read while the CA is running"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if hints := problem.Hints(err); !slices.Equal(hints, []string{"stop the CA and use --offline"}) {
		t.Errorf("hints %q", hints)
	}
}

// TestRefused opens what is locked, not a database, or not one of step-ca.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := filled(t, kind, 1)
			open, err := nosql.New(kind, cfg.DataSource)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Read(t.Context(), cfg, stopped); err == nil || err.Error() != "the CA's database "+cfg.DataSource+" is in use" {
				t.Errorf("locked: %v", err)
			}
			foreign := &db.Config{Type: kind, DataSource: filepath.Join(t.TempDir(), "db")}
			other, err := nosql.New(kind, foreign.DataSource)
			if err := errors.Join(err, open.Close(), other.CreateTable([]byte("mine")), other.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(t.Context(), foreign, stopped); err == nil || err.Error() != "the CA's database is not one of step-ca: it has no table ssh_hosts" {
				t.Errorf("foreign: %v", err)
			}
			empty := &db.Config{Type: kind, DataSource: t.TempDir()}
			for _, how := range []Reading{beside, stopped} {
				if _, err := Read(t.Context(), empty, how); err == nil || err.Error() != "the CA's database: "+empty.DataSource+" is empty" {
					t.Errorf("empty: %v", err)
				}
			}
			if found, _ := os.ReadDir(empty.DataSource); len(found) > 0 {
				t.Errorf("made %v", found)
			}
		})
	}
}

// TestRecords reads what is not as step-ca writes it.
func TestRecords(t *testing.T) {
	t.Parallel()
	set := func(table, key string, value []byte) func(nosqldb.DB) error {
		return func(to nosqldb.DB) error { return to.Set([]byte(table), []byte(key), value) }
	}
	strays := []string{"0x1f", "01", "-1", "1 ", "abcdef", strings.Repeat("f", 300)}
	changes := []func(nosqldb.DB) error{
		set(certsTable, "7", []byte("seven")), set(certsDataTable, "7", []byte("{")),
		set(certsTable, "8", bytes.Repeat([]byte{8}, maxValue+1)), set(certsDataTable, "8", []byte(`{"provisioner":null}`)),
		set(certsTable, "9", bytes.Repeat([]byte{9}, maxValue)), set(certsDataTable, "9", []byte(`{"provisioner":{"id":"i","name":"n"},"ra":{}}`)),
		set(revokedTable, "0", nil), set(revokedTable, "12345", []byte("no certificate")),
	}
	for _, key := range strays {
		changes = append(changes, set(revokedTable, key, []byte("{}")))
	}
	for _, kind := range fileTypes {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cfg := filled(t, kind, 0, changes...)
			s, err := Read(t.Context(), cfg, stopped)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			checkRecords(t, s)
			n, keys, err := s.Strays(t.Context())
			want := append([]string{}, strays...)
			want[len(want)-1] = want[len(want)-1][:256]
			if slices.Sort(keys); err != nil || n != len(strays) || !slices.Equal(keys, slices.Sorted(slices.Values(want))) {
				t.Errorf("%d %q, %v", n, keys, err)
			}
		})
	}
}

// checkRecords looks at the certificates 7, 8 and 9 of TestRecords.
func checkRecords(t *testing.T, s *Snapshot) {
	t.Helper()
	got := map[string]seen{}
	for c, err := range Map(t.Context(), s, look) {
		if got[c.serial] = c; err != nil {
			t.Error(err)
		}
	}
	seven, eight, nine := seen{serial: "7", der: "seven"}, got["8"], seen{serial: "9", der: strings.Repeat("\x09", maxValue), id: "i", name: "n"}
	if got["7"] != seven || got["9"] != nine || !errors.Is(eight.err, errNoValue) || eight.der != "" || len(got) != 3 {
		t.Errorf("%d certificates, %.200q", len(got), fmt.Sprint(got))
	}
	for serial, want := range map[string]string{"7": "seven", "10": "", "x": ""} {
		if der, err := s.Certificate(serial); string(der) != want || err != nil || (want == "") != (der == nil) {
			t.Errorf("%s: %q, %v", serial, der, err)
		}
	}
	if der, err := s.Certificate("8"); der != nil || !errors.Is(err, errNoValue) {
		t.Errorf("8: %d bytes, %v", len(der), err)
	}
}

// TestManyStrays counts more strange keys than are returned.
func TestManyStrays(t *testing.T) {
	t.Parallel()
	cfg := filled(t, nosql.BBoltDriver, 0, func(to nosqldb.DB) error {
		tx := new(nosqldb.Tx)
		for i := range maxStrays + 7 {
			tx.Set([]byte(revokedTable), fmt.Appendf(nil, "key%d", i), nil)
		}
		return to.Update(tx)
	})
	s, err := Read(t.Context(), cfg, stopped)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, keys, err := s.Strays(t.Context()); n != maxStrays+7 || len(keys) != maxStrays || err != nil {
		t.Errorf("%d, %d, %v", n, len(keys), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Strays(ctx); !errors.Is(err, problem.ErrInterrupted) {
		t.Error(err)
	}
}

// TestOldDatabase reads what step-ca before 0.20 has made.
func TestOldDatabase(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		cfg := &db.Config{Type: kind, DataSource: filepath.Join(t.TempDir(), "db")}
		made, err := nosql.New(cfg.Type, cfg.DataSource)
		if err := errors.Join(err, createTables(made, certsDataTable, crlTable, revokedTable), made.Set([]byte(certsTable), []byte("7"), []byte("seven")), made.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := Read(t.Context(), cfg, stopped)
		if err != nil {
			t.Fatal(err)
		}
		if all := readAll(t, s); len(all) != 1 || all["7"] != (seen{serial: "7", der: "seven"}) {
			t.Errorf("%s: %v", kind, all)
		}
		if n, _, err := s.Strays(t.Context()); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", kind, n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDB reads small tables as package nosql does.
func TestDB(t *testing.T) {
	t.Parallel()
	for _, kind := range fileTypes {
		s, err := Read(t.Context(), filled(t, kind, 3), stopped)
		if err != nil {
			t.Fatal(err)
		}
		checkDB(t, s.DB())
		if err := errors.Join(s.DB().Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

func checkDB(t *testing.T, d *DB) {
	t.Helper()
	entries, err := d.List([]byte(certsTable))
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if value, err := d.Get([]byte(certsTable), e.Key); err != nil || !bytes.Equal(value, e.Value) {
			t.Errorf("%s: %v", e.Key, err)
		}
	}
	if entries, err := d.List([]byte(sshHostsTable)); err != nil || len(entries) != 0 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	_, errList := d.List([]byte("none"))
	_, errGet := d.Get([]byte("none"), []byte("x"))
	_, errKey := d.Get([]byte(certsTable), []byte("x"))
	if !nosql.IsErrNotFound(errList) || !nosql.IsErrNotFound(errGet) || !nosql.IsErrNotFound(errKey) {
		t.Errorf("%v, %v, %v", errList, errGet, errKey)
	}
	if d.Set([]byte(certsTable), []byte("1"), nil) == nil || d.CreateTable([]byte("none")) != nil {
		t.Error("written")
	}
}
