package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

func openOwn(name string, flags int) (*os.File, error) { return os.OpenFile(name, flags, 0o600) }

// On Windows the access list of the directory decides who may write to a file.
func isOwn(os.FileInfo) bool       { return true }
func othersWrite(os.FileInfo) bool { return false }

// lockFile locks a file until it is closed, unless another process has locked it.
// It locks one byte far behind the end, because others may read the rest.
func lockFile(f *os.File) (locked bool, err error) {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 30})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
