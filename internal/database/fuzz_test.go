package database

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	badger2 "github.com/dgraph-io/badger/v2"
	"github.com/smallstep/certificates/db"
)

// limited ends the program if an input takes longer than any may. The result calls
// it off.
func limited() (done func() bool) {
	return time.AfterFunc(8*time.Second, func() { panic("an input takes more than 8 seconds") }).Stop
}

// oneRecord is a source with the same value everywhere.
type oneRecord struct {
	source
	value []byte
}

func (o oneRecord) get(context.Context, string, string) ([]byte, error) { return o.value, nil }

// FuzzRecords reads what the database has of a certificate: its provisioner, and
// its revocation. Both are what encoding/json finds there.
func FuzzRecords(f *testing.F) {
	for _, record := range []string{
		`{"provisioner":{"id":"1","name":"ci","type":"JWK"}}`, `{"provisioner":null}`, `{"ra":{"provisioner":{"id":"x"}}}`, `{"provisioner":{"id":1}}`, `[]`, "\xff", "",
		`{"Serial":"4660","ProvisionerID":"1","ReasonCode":4,"Reason":"text","RevokedAt":"2026-01-02T03:04:05Z","ExpiresAt":"2026-01-02T03:04:05Z","TokenID":"x","MTLS":false,"ACME":false}`, `{"RevokedAt":"x"}`, `null`,
	} {
		f.Add([]byte(record), "4660")
	}
	f.Fuzz(func(t *testing.T, record []byte, serial string) {
		defer limited()()
		s := &Snapshot{ctx: t.Context(), source: oneRecord{value: record}}
		var want struct{ Provisioner struct{ ID, Name string } }
		if json.Unmarshal(record, &want) != nil {
			want.Provisioner.ID, want.Provisioner.Name = "", ""
		}
		id, name, err := (&Issued{Serial: serial, from: s}).Provisioner()
		if err != nil || id != want.Provisioner.ID || name != want.Provisioner.Name {
			t.Errorf("the provisioner is %q, %q, %v; want %+v", id, name, err, want)
		}
		var wantInfo db.RevokedCertificateInfo
		wantErr := json.Unmarshal(record, &wantInfo)
		info, err := s.DB().Revocation(serial)
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(info, &wantInfo) {
			t.Errorf("the revocation is %+v, %v; want %+v, %v", info, err, wantInfo, wantErr)
		}
	})
}

// FuzzTable reads any file as a table of Badger.
func FuzzTable(f *testing.F) {
	dir := f.TempDir()
	o := badger2.DefaultOptions(dir).WithLogger(&badgerLog{quiet: true})
	made, err := badger2.Open(o)
	if err != nil {
		f.Fatal(err)
	}
	if err := made.Update(func(txn *badger2.Txn) error { return txn.Set([]byte("key"), []byte("value")) }); err != nil {
		f.Fatal(err)
	}
	if err := made.Close(); err != nil {
		f.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		f.Fatal("Badger has written no table: ", err)
	}
	table, err := os.ReadFile(tables[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(table, true)
	f.Add(table[:len(table)-1], true)
	f.Add([]byte("\xff\xff\xff\xff"), false)
	file, err := os.Create(filepath.Join(dir, "table"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = file.Close() })
	f.Fuzz(func(t *testing.T, data []byte, plain bool) {
		defer limited()()
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if good := checkTable(file, plain); good && len(data) < 16 {
			t.Errorf("%x is a table", data)
		}
	})
}
