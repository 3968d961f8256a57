package database

import (
	"bytes"
	"time"

	"github.com/smallstep/certificates/db"
	"go.etcd.io/bbolt"
)

// lockTimeout is how long to wait for a bbolt file that somebody else has open,
// as package nosql does.
const lockTimeout = 5 * time.Second

// openBBolt opens a bbolt file for reading.
func openBBolt(cfg *db.Config) (source, error) {
	opened, err := bbolt.Open(cfg.DataSource, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return nil, openError(cfg, err)
	}
	tx, err := opened.Begin(false)
	if err != nil {
		_ = opened.Close()
		return nil, openError(cfg, err)
	}
	return localFiles{&bboltFile{db: opened, tx: tx}}, nil
}

type bboltFile struct {
	db *bbolt.DB
	tx *bbolt.Tx
}

func (f *bboltFile) cursor(table string, _ bool) (cursor, error) {
	bucket := f.tx.Bucket([]byte(table))
	if bucket == nil {
		return &bboltCursor{}, nil
	}
	return &bboltCursor{inner: bucket.Cursor()}, nil
}

func (f *bboltFile) get(table, key string) ([]byte, error) {
	bucket := f.tx.Bucket([]byte(table))
	if bucket == nil {
		return nil, nil
	}
	value := bucket.Get([]byte(key))
	if len(value) > maxValue {
		return nil, errNoValue
	}
	return bytes.Clone(value), nil
}

func (f *bboltFile) has(table string) (bool, error) { return f.tx.Bucket([]byte(table)) != nil, nil }

func (f *bboltFile) close() error {
	_ = f.tx.Rollback()
	return f.db.Close()
}

type bboltCursor struct {
	inner   *bbolt.Cursor // nil if there is no such table
	begun   bool
	at, has []byte
}

func (c *bboltCursor) next() bool {
	step := c.step
	for c.at, c.has = step(); c.at != nil && c.has == nil; c.at, c.has = step() {
		// a bucket in this one
	}
	return c.at != nil
}

func (c *bboltCursor) step() (key, value []byte) {
	switch {
	case c.inner == nil:
		return nil, nil
	case !c.begun:
		c.begun = true
		return c.inner.First()
	}
	return c.inner.Next()
}

func (c *bboltCursor) order() []byte { return c.at }
func (c *bboltCursor) key() []byte   { return c.at }
func (c *bboltCursor) close()        {}

func (c *bboltCursor) value(fn func([]byte) error) error {
	if len(c.has) > maxValue {
		return errNoValue
	}
	return fn(c.has)
}
