package database

import (
	"encoding/binary"
	"os"
	"path/filepath"

	badger2 "github.com/dgraph-io/badger/v2"
	"github.com/dgraph-io/badger/v2/options"
	"github.com/dgraph-io/badger/v2/pb"
	"github.com/dgraph-io/badger/v2/y"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// checkTables makes sure that the ends of the tables of a Badger v2 directory are
// as they were written: where they are not, Badger may end the program, which no
// recover prevents (table/table.go, initIndex). Other errors are left to it. Of v1
// the manifest has checksums, which Badger checks.
func checkTables(dir string) error {
	file, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil
	}
	defer file.Close()
	manifest, _, err := badger2.ReplayManifestFile(file)
	if err != nil {
		return nil
	}
	for id, table := range manifest.Tables {
		file, err := os.Open(filepath.Join(dir, tableName(id)))
		if err != nil {
			return nil
		}
		plain := table.Compression == options.None && table.KeyID == 0 // as all of step-ca's own
		good := checkTable(file, plain)
		_ = file.Close()
		if !good {
			return problem.New("%w: the table %s is not as it was written", errDamaged, tableName(id))
		}
	}
	return nil
}

// checkTable checks the index of a table and, if that is plain, the last block,
// which Badger reads when it opens the table (table/builder.go, Finish).
func checkTable(file *os.File, plain bool) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	end := tail{file, info.Size()}
	sum, ok := end.field()
	if !ok {
		return false
	}
	index, ok := end.field()
	if !ok || !matches(index, sum) {
		return false
	}
	var table pb.TableIndex
	if table.Unmarshal(index) != nil || len(table.Offsets) == 0 {
		return false
	}
	if !plain {
		return true
	}
	begin := int64(table.Offsets[len(table.Offsets)-1].Offset)
	if sum, ok = end.field(); !ok || begin > end.size {
		return false
	}
	block, ok := end.last(end.size - begin)
	return ok && matches(block, sum)
}

// matches tells whether data has this checksum. Badger panics at one of a kind that it
// does not know (y/checksum.go, CalculateChecksum).
func matches(data, sum []byte) bool {
	var checksum pb.Checksum
	if checksum.Unmarshal(sum) != nil || pb.Checksum_Algorithm_name[int32(checksum.Algo)] == "" {
		return false
	}
	return y.VerifyChecksum(data, &checksum) == nil
}

// A tail is a file that is read from its end.
type tail struct {
	file *os.File
	size int64 // of what is left
}

// last returns the last n bytes.
func (t *tail) last(n int64) ([]byte, bool) {
	if n > t.size {
		return nil, false
	}
	t.size -= n
	part := make([]byte, n)
	_, err := t.file.ReadAt(part, t.size)
	return part, err == nil
}

// field returns what stands before its own length in four bytes.
func (t *tail) field() ([]byte, bool) {
	length, ok := t.last(4)
	if !ok {
		return nil, false
	}
	return t.last(int64(binary.BigEndian.Uint32(length)))
}
