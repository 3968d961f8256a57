package database

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	badger1 "github.com/dgraph-io/badger"
	options1 "github.com/dgraph-io/badger/options"
	badger2 "github.com/dgraph-io/badger/v2"
	options2 "github.com/dgraph-io/badger/v2/options"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql"
	nosqldb "github.com/smallstep/nosql/database"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

func isBadger2(cfg *db.Config) bool { return strings.EqualFold(cfg.Type, nosql.BadgerV2Driver) }

// openBadger opens a Badger directory for reading. One that was not closed
// properly, as every copy of one in use, has first to be opened for writing and
// closed: that stores what was only in its value log. In a copy a torn end of the
// value log is cut off; otherwise it is an error, as it is for step-ca.
func openBadger(ctx context.Context, cfg *db.Config, isCopy, quiet bool) (source, error) {
	open := func(mode badgerMode) (keyValue, error) {
		if ctx.Err() != nil { // do not make the directory of a removed copy again
			return nil, problem.ErrInterrupted
		}
		return openBadgerAs(mode, cfg, quiet)
	}
	settle := badgerAsUsual
	if isCopy {
		settle = badgerSettling
	}
	opened, err := open(badgerReading)
	if errors.Is(err, errNotReadOnly) {
		if opened, err = open(settle); err == nil {
			if err = closeInTime(opened.close); err == nil {
				opened, err = open(badgerReading)
			}
		}
	}
	if errors.Is(err, errNotReadOnly) { // as always on Windows
		opened, err = open(settle)
	}
	if err != nil {
		return nil, openError(cfg, err)
	}
	return localFiles{opened}, nil
}

// openBadgerAs opens a Badger directory. That Badger has left out a table, which it
// only logs, is an error.
func openBadgerAs(mode badgerMode, cfg *db.Config, quiet bool) (opened keyValue, err error) {
	log := &badgerLog{quiet: quiet}
	if isBadger2(cfg) {
		opened, err = openBadger2(cfg, mode, log)
	} else {
		opened, err = openBadger1(cfg, mode, log)
	}
	if err != nil {
		return nil, err
	}
	if err := log.missing(); err != nil {
		return nil, errors.Join(err, closeInTime(opened.close))
	}
	return opened, nil
}

// A badgerMode is how to open a Badger directory.
type badgerMode int

const (
	badgerReading  badgerMode = iota
	badgerSettling            // a copy, to store what is only in its value log
	badgerAsUsual             // as package nosql does
)

// errNotReadOnly says that a Badger directory cannot be opened just for reading.
var errNotReadOnly = errors.New("not closed properly")

const (
	idleTableSize = 1 << 20 // of the table in memory, which reading does not use
	noStall       = 1 << 20 // tables on level 0, of which nothing compacts any in a copy
)

func openBadger1(cfg *db.Config, mode badgerMode, log *badgerLog) (keyValue, error) {
	o := badger1.DefaultOptions(cfg.DataSource).WithLogger(log).WithEventLogging(false)
	if cfg.ValueDir != "" {
		o.ValueDir = cfg.ValueDir
	}
	if strings.EqualFold(cfg.BadgerFileLoadingMode, nosqldb.BadgerFileIO) {
		o.TableLoadingMode, o.ValueLogLoadingMode = options1.FileIO, options1.FileIO
	}
	switch mode {
	case badgerReading:
		o.ReadOnly, o.MaxTableSize = true, idleTableSize
	case badgerSettling:
		o.Truncate, o.SyncWrites, o.CompactL0OnClose, o.NumCompactors = true, false, false, 0
		o.NumLevelZeroTables, o.NumLevelZeroTablesStall = noStall, noStall+1
	}
	opened, err := badger1.Open(o)
	switch {
	case err == nil:
		return newBadgerDB(opened, func(txn *badger1.Txn, prefix []byte) badgerIterator[*badger1.Item] {
			return txn.NewIterator(badger1.IteratorOptions{Prefix: prefix})
		}), nil
	case mode == badgerReading && isNotReadOnly(err, badger1.ErrReplayNeeded, badger1.ErrWindowsNotSupported):
		return nil, errNotReadOnly
	}
	return nil, err
}

func openBadger2(cfg *db.Config, mode badgerMode, log *badgerLog) (keyValue, error) {
	if err := checkTables(cfg.DataSource); err != nil {
		return nil, err
	}
	o := badger2.DefaultOptions(cfg.DataSource).WithLogger(log)
	if mode != badgerAsUsual { // a block that is not as it was written would end the table
		o.ChecksumVerificationMode = options2.OnTableRead
	}
	if cfg.ValueDir != "" {
		o.ValueDir = cfg.ValueDir
	}
	if strings.EqualFold(cfg.BadgerFileLoadingMode, nosqldb.BadgerFileIO) {
		o.ValueLogLoadingMode = options2.FileIO
	}
	switch mode {
	case badgerReading:
		o.ReadOnly, o.MaxTableSize = true, idleTableSize
	case badgerSettling:
		o.Truncate, o.SyncWrites, o.CompactL0OnClose, o.NumCompactors = true, false, false, 0
		o.NumLevelZeroTables, o.NumLevelZeroTablesStall = noStall, noStall+1
	}
	opened, err := badger2.Open(o)
	switch {
	case err == nil:
		return newBadgerDB(opened, func(txn *badger2.Txn, prefix []byte) badgerIterator[*badger2.Item] {
			return txn.NewIterator(badger2.IteratorOptions{Prefix: prefix})
		}), nil
	case mode == badgerReading && isNotReadOnly(err, badger2.ErrReplayNeeded, badger2.ErrWindowsNotSupported):
		return nil, errNotReadOnly
	}
	return nil, err
}

// isNotReadOnly tells whether err is one of others. Badger keeps some of their
// texts only.
func isNotReadOnly(err error, others ...error) bool {
	for _, other := range others {
		if errors.Is(err, other) || strings.Contains(err.Error(), other.Error()) {
			return true
		}
	}
	return false
}

// A badgerLog keeps in mind which table Badger leaves out when it opens a
// directory, and shows what it says unless it is quiet.
type badgerLog struct {
	quiet   bool
	mu      sync.Mutex
	leftOut string
}

// Errorf takes an error. Most of them say nothing about what can be read, such as
// that Badger cannot write statistics to a directory that is opened for reading.
func (l *badgerLog) Errorf(format string, args ...any) {
	if strings.HasPrefix(format, "Ignoring table ") { // levels.go of both versions
		l.mu.Lock()
		l.leftOut = fmt.Sprint(args...)
		l.mu.Unlock()
	}
	l.say("ERROR", format, args)
}

// Warningf takes a warning.
func (l *badgerLog) Warningf(format string, args ...any) { l.say("WARNING", format, args) }

// Infof takes any other news.
func (l *badgerLog) Infof(format string, args ...any) { l.say("INFO", format, args) }

// Debugf says nothing.
func (l *badgerLog) Debugf(string, ...any) {}

func (l *badgerLog) say(level, format string, args []any) {
	if !l.quiet {
		fmt.Fprintf(os.Stderr, "badger %s: %s\n", level, strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

// missing is an error if Badger has left out a table: one of which a checksum is
// wrong.
func (l *badgerLog) missing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leftOut == "" {
		return nil
	}
	return problem.New("%w: the table %.64s is not as it was written", errDamaged, l.leftOut)
}

// closeInTime closes a database, or leaves that to the background when it takes
// too long. On a full disk it takes forever.
func closeInTime(closes func() error) error {
	closed := make(chan error, 1)
	go func() { closed <- closes() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTimeout):
		return errors.New("it does not close")
	}
}

// What both versions of Badger have.
type (
	badgerItem interface {
		Key() []byte
		EstimatedSize() int64
		Value(fn func(value []byte) error) error
	}
	badgerIterator[I badgerItem] interface {
		Seek(key []byte)
		ValidForPrefix(prefix []byte) bool
		Next()
		Item() I
		Close()
	}
	badgerTxn[I badgerItem] interface {
		Get(key []byte) (I, error)
		Discard()
	}
	badgerInner[T any] interface {
		NewTransaction(update bool) T
		Close() error
	}
)

// A badgerDB is an open Badger directory that nobody writes to.
type badgerDB[I badgerItem, T badgerTxn[I]] struct {
	inner   badgerInner[T]
	iterate func(txn T, prefix []byte) badgerIterator[I]
}

func newBadgerDB[I badgerItem, T badgerTxn[I]](inner badgerInner[T], iterate func(T, []byte) badgerIterator[I]) keyValue {
	return badgerDB[I, T]{inner, iterate}
}

func (d badgerDB[I, T]) cursor(table string, _ bool) (cursor, error) { return d.open(table), nil }

func (d badgerDB[I, T]) open(table string) *badgerCursor[I] {
	txn, prefix := d.inner.NewTransaction(false), badgerPart(table)
	return &badgerCursor[I]{it: d.iterate(txn, prefix), discard: txn.Discard, prefix: prefix}
}

func (d badgerDB[I, T]) get(table, key string) (value []byte, err error) {
	txn := d.inner.NewTransaction(false)
	defer txn.Discard()
	item, err := txn.Get(append(badgerPart(table), badgerPart(key)...))
	if errors.Is(err, badger1.ErrKeyNotFound) || errors.Is(err, badger2.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		err = badgerValue(item, func(v []byte) error {
			value = append([]byte{}, v...)
			return nil
		})
	}
	return value, err
}

func (d badgerDB[I, T]) has(table string) (bool, error) {
	c := d.open(table)
	defer c.close()
	c.it.Seek(c.prefix)
	return c.it.ValidForPrefix(c.prefix), nil
}

func (d badgerDB[I, T]) close() error { return d.inner.Close() }

// A badgerCursor does not prefetch: that is slower, and a panic in a goroutine of
// Badger would end the program.
type badgerCursor[I badgerItem] struct {
	it      badgerIterator[I]
	discard func()
	prefix  []byte
	begun   bool
	item    I
}

// next skips the entry that stands for the table itself: it has no key.
func (c *badgerCursor[I]) next() bool {
	for {
		if c.begun {
			c.it.Next()
		} else {
			c.it.Seek(c.prefix)
		}
		c.begun = true
		if !c.it.ValidForPrefix(c.prefix) {
			return false
		}
		if c.item = c.it.Item(); len(c.item.Key()) > len(c.prefix) {
			return true
		}
	}
}

func (c *badgerCursor[I]) order() []byte { return c.item.Key()[len(c.prefix):] }

func (c *badgerCursor[I]) key() []byte {
	if key := c.order(); len(key) >= 2 && int(binary.LittleEndian.Uint16(key)) == len(key)-2 {
		return key[2:]
	}
	return c.order() // nothing that package nosql has written
}

func (c *badgerCursor[I]) value(fn func([]byte) error) error { return badgerValue(c.item, fn) }

func (c *badgerCursor[I]) close() {
	c.it.Close()
	c.discard()
}

// badgerValue calls fn with the value.
func badgerValue(item badgerItem, fn func([]byte) error) error {
	if item.EstimatedSize() > maxValue+int64(len(item.Key()))+64 { // the headers of what is in a value log
		return errNoValue
	}
	return item.Value(func(value []byte) error {
		if len(value) > maxValue {
			return errNoValue
		}
		return fn(value)
	})
}

// badgerPart encodes a part of a key as package nosql does (badger/v2/badger.go,
// badgerEncode): its length in two bytes, and itself.
func badgerPart(part string) []byte {
	var b bytes.Buffer
	b.Grow(2 + len(part))
	b.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(part))))
	b.WriteString(part)
	return b.Bytes()
}
