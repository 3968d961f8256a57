//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openOwn opens a file, but follows no symbolic link to it and waits for nobody
// at the other end of a pipe. One that it creates is for its owner alone.
func openOwn(name string, flags int) (*os.File, error) {
	return os.OpenFile(name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}

// isOwn tells whether a file belongs to the user who runs this.
func isOwn(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

func othersWrite(info os.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }

// lockFile locks a file for as long as it is open, unless another process has.
func lockFile(f *os.File) (locked bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
