//go:build unix

package journal

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openOwn opens a file. It does not follow a symbolic link, nor wait for the
// other end of a pipe. Only the owner can read and write a file that it makes.
func openOwn(name string, flags int) (*os.File, error) {
	return os.OpenFile(name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}

// isOwn tells whether a file belongs to the user who runs this.
func isOwn(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

func othersWrite(info os.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }

// lockFile locks a file until it is closed, unless another process has locked it.
func lockFile(f *os.File) (locked bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
