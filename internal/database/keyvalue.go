package database

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A keyValue is an open database in files.
type keyValue interface {
	// cursor goes through a table in order. A table that is not there is empty.
	// Without values only keys are asked for.
	cursor(table string, values bool) (cursor, error)
	// get returns nil if there is no such entry.
	get(table, key string) ([]byte, error)
	has(table string) (bool, error)
	close() error
}

// A cursor stands before the first entry of a table. What it returns is valid
// until its next step.
type cursor interface {
	next() bool
	order() []byte // of the entry: what the database sorts entries by
	key() []byte
	// value calls fn with the value. An error of its own is errNoValue or says
	// that the value is damaged.
	value(fn func([]byte) error) error
	close()
}

// files is the source that is a database in files.
type localFiles struct{ keyValue }

func (f localFiles) each(ctx context.Context, fn func(*row) error) error {
	certs, err := f.cursor(certsTable, true)
	if err != nil {
		return err
	}
	defer certs.close()
	revoked, err := f.cursor(revokedTable, false)
	if err != nil {
		return err
	}
	defer revoked.close()
	var r row
	var stopped error
	take := func(der []byte) error {
		r.der, r.err = der, nil
		stopped = fn(&r)
		return stopped
	}
	for more := revoked.next(); certs.next(); {
		if ctx.Err() != nil {
			return problem.ErrInterrupted
		}
		here := certs.order()
		for more && bytes.Compare(revoked.order(), here) < 0 {
			more = revoked.next()
		}
		r.key, r.revoked = certs.key(), more && bytes.Equal(revoked.order(), here)
		if err := certs.value(take); err != nil && stopped == nil {
			r.der, r.err = nil, err
			stopped = fn(&r)
		}
		if stopped != nil {
			return stopped
		}
	}
	return nil
}

func (f localFiles) scan(ctx context.Context, table string, values bool, fn func(key, value []byte) error) error {
	c, err := f.cursor(table, values)
	if err != nil {
		return err
	}
	defer c.close()
	for c.next() {
		if ctx.Err() != nil {
			return problem.ErrInterrupted
		}
		if !values {
			err = fn(c.key(), nil)
		} else {
			err = c.value(func(value []byte) error { return fn(c.key(), value) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f localFiles) get(_ context.Context, table, key string) ([]byte, error) {
	return f.keyValue.get(table, key)
}

func (f localFiles) has(_ context.Context, table string) (bool, error) { return f.keyValue.has(table) }

// errDamaged stands for a panic in a database's package.
var errDamaged = problem.New("the CA's database is damaged")

// guarded turns a panic into an error: damaged files make Badger and bbolt panic,
// or read where no file is mapped.
func guarded(step func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if value := recover(); value != nil {
			err = problem.Wrap(fmt.Errorf("%v", value), "%w", errDamaged)
		}
	}()
	return step()
}
