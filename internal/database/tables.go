package database

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v2/pb"
	"github.com/dgraph-io/badger/v2/y"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// checkTables makes sure that the ends of the tables of a Badger v2 directory are
// what they were when they were written: where they are not, Badger ends the
// program (table/table.go, initIndex). Other errors are left to it.
func checkTables(dir string) error {
	manifest, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil
	}
	defer manifest.Close()
	ids, _, err := tableIDs(manifest, true)
	if err != nil {
		return nil
	}
	for _, id := range ids {
		file, err := os.Open(filepath.Join(dir, tableName(id)))
		if err != nil {
			return nil
		}
		good := checkTable(file)
		_ = file.Close()
		if !good {
			return problem.New("%w: the table %s is not as it was written", errDamaged, tableName(id))
		}
	}
	return nil
}

// checkTable checks the index of a table. From its end the file has: the length
// of the checksum in four bytes, the checksum, the length of the index in four
// bytes, the index.
func checkTable(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	end := info.Size()
	last := func(n int64) []byte {
		if n > end || err != nil {
			err = io.ErrUnexpectedEOF
			return nil
		}
		end -= n
		part := make([]byte, n)
		_, err = file.ReadAt(part, end)
		return part
	}
	length := func() int64 {
		if part := last(4); err == nil {
			return int64(binary.BigEndian.Uint32(part))
		}
		return 0
	}
	var checksum pb.Checksum
	if sum := last(length()); err != nil || checksum.Unmarshal(sum) != nil {
		return false
	}
	index := last(length())
	return err == nil && len(index) > 0 && y.VerifyChecksum(index, &checksum) == nil
}
