//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// foreignOwner returns the owner of the first file in a directory, or of a
// file, that is not the user who runs this, or nothing.
func foreignOwner(root string) (owner, path string, err error) {
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", "", err
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
		owner, path = strconv.Itoa(int(stat.Uid)), file
		if u, err := user.LookupId(owner); err == nil {
			owner = u.Username
		} else {
			owner = "#" + owner // as sudo -u takes it
		}
		return filepath.SkipAll
	})
	return owner, path, err
}

// ignoreMissing drops the error for a file that a running CA has just removed.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
