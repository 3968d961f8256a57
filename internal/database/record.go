package database

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
)

// revoked is the table of revocations.
var revoked = []byte(revokedTable)

// Revocation returns the CA's record of the revocation of a certificate, whose
// serial number is in decimal, or nil if there is no record.
func (d *DB) Revocation(serial string) (*db.RevokedCertificateInfo, error) {
	_, info, err := d.Stored(serial)
	return info, err
}

// Stored returns the record of a revocation also as it is stored.
func (d *DB) Stored(serial string) (record []byte, info *db.RevokedCertificateInfo, err error) {
	record, err = d.Get(revoked, []byte(serial))
	if nosql.IsErrNotFound(err) {
		return nil, nil, nil
	}
	info = &db.RevokedCertificateInfo{}
	if err == nil {
		err = json.Unmarshal(record, info)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the record of the serial number %s: %w", serial, err)
	}
	return record, info, nil
}

// Replace puts another record in the place of one that is stored like this, or
// removes that if the other is nil. It does neither, and returns false, if the
// record has changed meanwhile or is gone.
func (d *DB) Replace(serial string, was, now []byte) (bool, error) {
	if InFiles(&d.config) {
		// No other process has it open, and package nosql has no removal that compares.
		lock := &d.locks[maphash.String(seed, serial)%uint64(len(d.locks))]
		lock.Lock()
		defer lock.Unlock()
	}
	switch {
	case now != nil:
		_, swapped, err := d.CmpAndSwap(revoked, []byte(serial), was, now)
		return swapped, err
	case InFiles(&d.config):
		return d.removeFromFiles(serial, was)
	}
	return d.removeFromServer(serial, was)
}

var seed = maphash.MakeSeed()

func (d *DB) removeFromFiles(serial string, was []byte) (bool, error) {
	stored, err := d.Get(revoked, []byte(serial))
	switch {
	case nosql.IsErrNotFound(err), err == nil && !bytes.Equal(stored, was):
		return false, nil
	case err == nil:
		err = d.Del(revoked, []byte(serial))
	}
	return err == nil, err
}

// removeFromServer compares and removes in one statement, for which it has
// connections of its own. The names of columns are those of package nosql
// (createTableQry).
func (d *DB) removeFromServer(serial string, was []byte) (bool, error) {
	server, err := d.openServer()
	if err != nil {
		return false, err
	}
	statement := "DELETE FROM " + revokedTable + " WHERE nkey = $1 AND nvalue = $2"
	if strings.EqualFold(d.config.Type, nosql.MySQLDriver) {
		statement = "DELETE FROM " + revokedTable + " WHERE nkey = ? AND nvalue = ?"
	}
	result, err := server.Exec(statement, []byte(serial), was)
	if err != nil {
		return false, err
	}
	removed, err := result.RowsAffected()
	return removed == 1, err
}

// openServer opens the connections of removeFromServer when they are needed first.
func (d *DB) openServer() (_ *sql.DB, err error) {
	d.direct.Lock()
	defer d.direct.Unlock()
	if d.server == nil {
		d.server, err = connect(&d.config)
	}
	return d.server, err
}

func (d *DB) closeServer() error {
	d.direct.Lock()
	defer d.direct.Unlock()
	if d.server == nil {
		return nil
	}
	return d.server.Close()
}
