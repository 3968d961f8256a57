package batch

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// preferHugePages asks the kernel for huge pages where the heap is about to grow
// (madvise(2), MADV_HUGEPAGE): the first touch of a page is what costs, and of
// them there are fewer. Nothing is touched here. A kernel that has none refuses,
// which is no harm.
func preferHugePages() {
	const growth = 256 << 20 // bytes; offline a batch has some 200 MB
	heap := make([]byte, growth)
	_ = unix.Madvise(heap, unix.MADV_HUGEPAGE)
	runtime.KeepAlive(heap)
	runtime.GC() // without it the collector would take this for memory in use
}
