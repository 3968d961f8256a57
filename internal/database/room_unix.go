//go:build unix

package database

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBytes returns how many bytes this user can still write in a directory.
func freeBytes(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(max(int64(s.Bavail), 0)) * uint64(s.Bsize), nil
}

// isFull tells whether err says that there is no room on a disk.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
