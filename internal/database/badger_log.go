package database

import (
	"os"
	"sync"
)

var (
	badgerStderr = os.Stderr  // what badger v1 has taken at its initialization and writes its log to
	realStderr   = *os.Stderr // the same file under another address; it also keeps descriptor 2 from being finalized
)

// muzzle puts the null device in the place of the file that badger writes to.
var muzzle = sync.OnceValue(func() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		*badgerStderr = *null
	}
	return err
})

// silenceBadger keeps badger's log off standard error until the process ends.
// Package nosql, which opens badger, has no option for that. Badger v1 takes the
// variable os.Stderr when it is initialized, v2 when it opens a database. So the
// file at the variable's first address becomes the null device, and the variable
// points there until restore gives it a working file at another address.
// Only what uses the variable meanwhile is lost: package ui does not.
func silenceBadger() (restore func()) {
	if muzzle() != nil {
		return func() {}
	}
	os.Stderr = badgerStderr
	return func() { os.Stderr = &realStderr }
}
