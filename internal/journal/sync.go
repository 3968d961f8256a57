package journal

import (
	"cmp"
	"sync"
	"time"
)

// syncInterval bounds how long a line is not on the disk: this, and the time that
// the disk takes.
const syncInterval = time.Second

// A syncer has what was written to a file put on the disk in the background, at
// most once in an interval. Writing waits for nothing, and with nothing to write
// nothing runs. An outcome that waits for the next one before it is put on the
// disk may wait for minutes: that takes a timer.
type syncer struct {
	file interface{ Sync() error } // the journal

	mu      sync.Mutex     // for what follows
	timer   *time.Timer    // nil before the first write
	dirty   bool           // something was written since the last sync began
	running bool           // a sync is to come, or under way
	ended   bool           // no sync begins any more
	syncing sync.WaitGroup // the sync that is under way
	err     error          // of the first sync that has failed
}

// soon is called after each write. Its error is that of an earlier sync.
func (s *syncer) soon() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
	s.start()
	return s.err
}

func (s *syncer) start() {
	if s.dirty && !s.running {
		s.running = true
		s.timer = time.AfterFunc(syncInterval, s.run)
	}
}

func (s *syncer) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.dirty = false
	s.syncing.Add(1)
	s.mu.Unlock()
	err := s.file.Sync()
	s.mu.Lock()
	s.syncing.Done()
	s.err, s.running = cmp.Or(s.err, err), false
	s.start()
}

// end waits for a sync that is under way, because a system tells of an error only
// once, and returns the error of that or an earlier one.
func (s *syncer) end() error {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.syncing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
