//go:build unix

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	badger1 "github.com/dgraph-io/badger"
	"github.com/dgraph-io/badger/v2"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"
)

func cmdRecorded(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] recorded SERIAL")
	}
	stored, err := current(ts).database()
	ts.Check(err)
	record, ok := stored["revoked_x509_certs/"+args[0]]
	switch {
	case ok && neg:
		ts.Fatalf("the CA's database holds a revocation of %s: %s", args[0], record)
	case !ok && !neg:
		ts.Fatalf("the CA's database holds no revocation of %s", args[0])
	}
	fmt.Fprintln(ts.Stdout(), record)
}

func cmdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: snapshot")
	}
	ca := current(ts)
	var err error
	ca.saved, err = ca.database()
	ts.Check(err)
}

func cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	ca := current(ts)
	if neg || len(args) != 0 || ca.saved == nil {
		ts.Fatalf("usage: unchanged, after snapshot")
	}
	now, err := ca.database()
	ts.Check(err)
	before := maps.Clone(ca.saved)
	delete(before, "x509_crl/crl")
	delete(now, "x509_crl/crl")
	if maps.Equal(before, now) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if old, ok := before[key]; !ok || old != now[key] {
			ts.Logf("new or changed: %s: %.200q", key, now[key])
		}
		delete(before, key)
	}
	ts.Fatalf("the CA's database has changed; gone: %q", slices.Sorted(maps.Keys(before)))
}

// database returns what the CA's database holds, as table/key to value. A
// running CA is stopped for it.
func (ca *scriptCA) database() (_ map[string]string, err error) {
	var config struct {
		DB *struct{ Type, DataSource, Database string }
	}
	if err := readJSON(filepath.Join(ca.dir, "config", "ca.json"), &config); err != nil {
		return nil, err
	}
	if config.DB == nil {
		return nil, errors.New("the CA has no database")
	}
	if servers[config.DB.Type] != nil {
		return readServer(config.DB.Type, config.DB.DataSource, config.DB.Database)
	}
	if ca.process != nil {
		if err := ca.stop(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, ca.start()) }()
	}
	if config.DB.Type == "bbolt" {
		return readBbolt(config.DB.DataSource)
	}
	return readBadger(config.DB.DataSource)
}

// readBadger reads a badger database in the key format of smallstep/nosql:
// table and key, each behind its length in two bytes.
func readBadger(dir string) (map[string]string, error) {
	entries := map[string]string{}
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST")); errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	// This reads a copy: badger may have to replay entries that step-ca has left,
	// and refuses to do that in a database that is opened read-only.
	clone, err := os.MkdirTemp(sharedDir, "db")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(clone)
	if err := os.CopyFS(clone, os.DirFS(dir)); err != nil {
		return nil, err
	}
	db, err := badger.Open(badger.DefaultOptions(clone).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return entries, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			var path []string
			for key := it.Item().Key(); len(key) >= 2; {
				n := 2 + int(binary.LittleEndian.Uint16(key))
				path = append(path, string(key[2:n]))
				key = key[n:]
			}
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			entries[strings.Join(path, "/")] = string(value)
		}
		return nil
	})
}

// writeBadger stores entries as step-ca would, table/key to value.
func writeBadger(dir string, entries map[string]string) error {
	db, err := unlocked(func() (*badger.DB, error) { return badger.Open(badger.DefaultOptions(dir).WithLogger(nil)) })
	if err != nil {
		return err
	}
	err = db.Update(func(txn *badger.Txn) error { return setAll(entries, txn.Set) })
	return errors.Join(err, db.Close())
}

// writeBadger1 does the same with version 1.
func writeBadger1(dir string, entries map[string]string) error {
	db, err := unlocked(func() (*badger1.DB, error) { return badger1.Open(badger1.DefaultOptions(dir).WithLogger(nil)) })
	if err != nil {
		return err
	}
	err = db.Update(func(txn *badger1.Txn) error { return setAll(entries, txn.Set) })
	return errors.Join(err, db.Close())
}

// unlocked opens a Badger directory again as long as it is locked: a program that
// another test starts has what this process had open, for a moment.
func unlocked[T any](open func() (T, error)) (db T, err error) {
	for deadline := time.Now().Add(tooLong); ; time.Sleep(10 * time.Millisecond) {
		db, err = open()
		if err == nil || !strings.Contains(err.Error(), "Cannot acquire directory lock") || time.Now().After(deadline) {
			return db, err
		}
	}
}

func setAll(entries map[string]string, set func(key, value []byte) error) error {
	for path, value := range entries {
		var key []byte
		for _, part := range strings.SplitN(path, "/", 2) {
			key = append(binary.LittleEndian.AppendUint16(key, uint16(len(part))), part...)
		}
		if err := set(key, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func readBbolt(file string) (map[string]string, error) {
	entries := map[string]string{}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: tooLong})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return entries, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(table []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				entries[string(table)+"/"+string(key)] = string(value)
				return nil
			})
		})
	})
}

func cmdAllRecorded(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] all-recorded LIST")
	}
	stored, err := current(ts).database()
	ts.Check(err)
	missing := 0
	for _, serial := range strings.Fields(ts.ReadFile(args[0])) {
		if _, ok := stored["revoked_x509_certs/"+serial]; !ok {
			missing++
		}
	}
	if missing > 0 != neg {
		ts.Fatalf("the CA's database lacks %d revocations", missing)
	}
}

func cmdForeign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: foreign badger|bbolt PATH")
	}
	if args[0] == "badger" {
		db, err := badger.Open(badger.DefaultOptions(ts.MkAbs(args[1])).WithLogger(nil))
		ts.Check(err)
		ts.Check(db.Close())
		return
	}
	db, err := bbolt.Open(ts.MkAbs(args[1]), 0o600, nil)
	ts.Check(err)
	ts.Check(db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("people"))
		return err
	}))
	ts.Check(db.Close())
}
