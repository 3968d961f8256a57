//go:build unix

package database

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// foreignOwner returns the first file in a directory, or the file itself, that
// does not belong to the user who runs this, or nil.
func foreignOwner(root string) (foreign *OwnerError, err error) {
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			return ignoreMissing(err)
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || int(stat.Uid) == os.Geteuid() {
			return nil
		}
		foreign = &OwnerError{Path: file, Owner: nameOf(stat.Uid)}
		return filepath.SkipAll
	})
	return foreign, err
}

// ownerOf says to whom a file belongs that this user may not read, or the nearest
// directory above it that can be seen. It returns nil if that is this user.
func ownerOf(file string) *OwnerError {
	for {
		info, err := os.Stat(file)
		if err == nil {
			stat, ok := info.Sys().(*syscall.Stat_t)
			if !ok || int(stat.Uid) == os.Geteuid() {
				return nil
			}
			return &OwnerError{Path: file, Owner: nameOf(stat.Uid), Unreadable: true}
		}
		above := filepath.Dir(file)
		if above == file {
			return nil
		}
		file = above
	}
}

// nameOf names a user in the way that sudo -u takes.
func nameOf(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}

// ignoreMissing drops the error for a file that a running CA has just removed.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
