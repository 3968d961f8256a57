package batch

import (
	"runtime"
	"runtime/debug"
)

// manyTargets is from how many targets on huge pages pay off.
const manyTargets = 20

// Tune fits Go's runtime to a batch with so many targets. It changes the whole
// process, and is called once.
func Tune(inProcess bool, targets int) {
	processors := runtime.GOMAXPROCS(0)
	if !inProcess {
		debug.SetGCPercent(400) // there is little in memory
		runtime.GOMAXPROCS(max(1, processors/2))
		return
	}
	if targets > manyTargets {
		preferHugePages()
	}
	runtime.GOMAXPROCS(2 * processors)
}
