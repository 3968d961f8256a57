package database

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// create makes a database with a table of step-ca in it.
func create(cfg *db.Config) error {
	made, err := nosql.New(cfg.Type, cfg.DataSource)
	if err != nil {
		return err
	}
	return errors.Join(made.CreateTable([]byte("ssh_hosts")), made.CreateTable([]byte("revoked_x509_certs")), made.Close())
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	badger, other := filepath.Dir(file("badger/MANIFEST", "x")), filepath.Dir(file("other/notes", "x"))
	values, bolt, blank := filepath.Dir(file("values/000000.vlog", "x")), file("bolt", "x"), file("blank", "")
	missing, empty, hidden := filepath.Join(dir, "missing"), t.TempDir(), filepath.Dir(file("hidden/.keep", "x"))
	const newCA = "check \"db\" in ca.json; a new database would be a new CA"
	for _, tt := range []struct {
		kind, source, values string
		want, hint           string
	}{
		{kind: "badger", source: badger},
		{kind: "BadgerV2", source: badger, values: values},
		{kind: "badgerv1", source: badger, values: badger},
		{kind: "badgerv2", source: badger, values: missing, want: "the CA's database: stat " + missing + ": ", hint: newCA},
		{kind: "badgerv2", source: badger, values: empty, want: "the CA's database: " + empty + " is empty", hint: newCA},
		{kind: "badgerv2", source: missing, want: "the CA's database: stat " + missing + ": ", hint: newCA},
		{kind: "badgerv2", source: empty, want: "the CA's database: " + empty + " is empty", hint: newCA},
		{kind: "badgerv2", source: blank, want: "the CA's database: " + blank + " is empty", hint: newCA},
		{kind: "badgerv2", source: other, want: "the CA's database: " + other + " is not a Badger database", hint: "check \"db\" in ca.json"},
		{kind: "badger", source: hidden, want: "the CA's database: " + hidden + " is not a Badger database", hint: "check \"db\" in ca.json"},
		{kind: "badger", source: bolt, want: "the CA's database: " + bolt + " is not a Badger database", hint: "check \"db\" in ca.json"},
		{kind: "bbolt", source: bolt},
		{kind: "bbolt", source: missing, want: "the CA's database: stat " + missing + ": ", hint: newCA},
		{kind: "BBolt", source: blank, want: "the CA's database: " + blank + " is empty", hint: newCA},
		{kind: "postgresql", source: missing},
		{kind: "MySQL", source: missing},
		{kind: "oracle", source: badger, want: "the CA's database is of an unknown type, \"oracle\"", hint: "check \"db\" in ca.json"},
		{kind: "", source: badger, want: "the CA's database is of an unknown type, \"\"", hint: "check \"db\" in ca.json"},
	} {
		err := Check(&db.Config{Type: tt.kind, DataSource: tt.source, ValueDir: tt.values})
		if err == nil != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
		if hints := strings.Join(problem.Hints(err), "|"); hints != tt.hint {
			t.Errorf("%+v: hints %q", tt, hints)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Errorf("%s was made", missing)
	}
}

func TestInFiles(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]bool{"badger": true, "badgerV1": true, "BADGERV2": true, "bbolt": true, "postgresql": false, "mysql": false} {
		if got := InFiles(&db.Config{Type: kind, DataSource: "x"}); got != want {
			t.Errorf("%s: %t", kind, got)
		}
	}
}

// TestOpen opens what is a database of step-ca and what is none.
func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := &db.Config{Type: "bbolt", DataSource: filepath.Join(dir, "ours")}
	foreign := &db.Config{Type: "bbolt", DataSource: filepath.Join(dir, "foreign")}
	if err := create(ours); err != nil {
		t.Fatal(err)
	}
	made, err := nosql.New(foreign.Type, foreign.DataSource)
	if err := errors.Join(err, made.CreateTable([]byte("mine")), made.Close()); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(ours, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(foreign, true); err == nil || !strings.HasPrefix(err.Error(), "the CA's database is not one of step-ca: ") {
		t.Errorf("foreign: %v", err)
	}
}

// TestServers shows that the password in a data source stays out of errors.
func TestServers(t *testing.T) {
	t.Parallel()
	for _, cfg := range []*db.Config{
		{Type: "postgresql", DataSource: "postgresql://ca:sesame@localhost:port/x"},
		{Type: "postgresql", DataSource: "postgresql://ca:sesame@127.0.0.1:1/x"},
		{Type: "mysql", DataSource: "ca:sesame@127.0.0.1:1"},
		{Type: "mysql", DataSource: "ca:sesame@tcp(127.0.0.1:1)/", Database: "x"},
	} {
		_, err := Open(cfg, true)
		if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "the CA's database") {
			t.Errorf("%s: %v", cfg.DataSource, err)
		}
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	cfg := &db.Config{Type: "bbolt", DataSource: filepath.Join(t.TempDir(), "db")}
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	want := &db.RevokedCertificateInfo{Serial: "42", ReasonCode: 4, Reason: "moved", RevokedAt: time.Unix(1e9, 0).UTC()}
	if err := errors.Join((&db.DB{DB: opened}).Revoke(want), opened.Set([]byte("revoked_x509_certs"), []byte("43"), []byte("{"))); err != nil {
		t.Fatal(err)
	}
	if got, err := opened.Revocation("42"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("42: %+v, %v", got, err)
	}
	if got, err := opened.Revocation("43"); err == nil || !strings.HasPrefix(err.Error(), "reading the record of the serial number 43: ") {
		t.Errorf("43: %+v, %v", got, err)
	}
	if got, err := opened.Revocation("44"); got != nil || err != nil {
		t.Errorf("44: %+v, %v", got, err)
	}
}

// TestRoomOf shows what bounds a CRL on MySQL: the usual sizes of columns and
// packets.
func TestRoomOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		column, packet, want int64
		remedy               string
	}{
		{1<<16 - 1, 1 << 24, 1<<16 - 1, "ALTER TABLE x509_crl MODIFY nvalue MEDIUMBLOB"},
		{1<<24 - 1, 1 << 24, 1<<23 - 1024, "SET GLOBAL max_allowed_packet = 1073741824"},
		{1<<24 - 1, 1 << 30, 1<<24 - 1, "ALTER TABLE x509_crl MODIFY nvalue LONGBLOB"},
		{1<<32 - 1, 1 << 30, 1<<29 - 1024, "SET GLOBAL max_allowed_packet = 1073741824"},
	} {
		if got := roomOf(tt.column, tt.packet); got != (Room{tt.want, tt.remedy}) {
			t.Errorf("%d, %d: %+v, want %d, %s", tt.column, tt.packet, got, tt.want, tt.remedy)
		}
	}
	if room, err := CRLRoom(&db.Config{Type: "PostgreSQL", DataSource: "%"}); err != nil || room.Bytes != 0 {
		t.Errorf("%+v, %v", room, err)
	}
	if _, err := CRLRoom(&db.Config{Type: "MySQL", DataSource: "step:sesame@tcp("}); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("%v", err)
	}
}
