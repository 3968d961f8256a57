package ui

import (
	"os"
	"sync"
	"time"
)

// A stream is standard output or standard error. A reader that is slow is waited
// for, but after a signal only for a moment: what happens then must still reach
// the journal. Text that the reader has not taken by then is kept, and written if
// the reader goes on before the process ends.
type stream struct {
	texts   chan []byte // to the goroutine that writes
	written chan error  // from it, for each text

	mu    sync.Mutex
	stuck bool // nobody waits for the reader any more
	kept  [][]byte
	size  int           // of kept, in bytes
	idle  chan struct{} // closed when the reader has taken everything that was kept
}

func newStream(file *os.File) *stream {
	s := &stream{texts: make(chan []byte), written: make(chan error, 1)}
	go func() {
		for text := range s.texts {
			_, err := file.Write(text)
			s.written <- err
		}
	}()
	return s
}

// patience is how long a reader is waited for after a signal.
const patience = 100 * time.Millisecond

// patiently calls a function that writes, and leaves it behind if the reader does
// not read.
func patiently(write func()) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		write()
	}()
	select {
	case <-written:
	case <-time.After(patience):
	}
}

// maxKept bounds the text that is kept for a reader, in bytes. The rest is lost:
// such a reader is not there any more.
const maxKept = 64 << 20

// hurry is closed by a signal.
var hurry = make(chan struct{})

// Write writes p. After a signal it returns although the reader has not taken p
// yet.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := append([]byte(nil), p...)
	if s.stuck {
		s.keep(text)
		return len(p), nil
	}
	s.texts <- text
	select {
	case err := <-s.written:
		return len(p), err
	case <-hurry:
	}
	select {
	case err := <-s.written:
		return len(p), err
	case <-time.After(patience):
		s.stuck, s.idle = true, make(chan struct{})
		go s.writeKept(s.idle)
		return len(p), nil
	}
}

func (s *stream) keep(text []byte) {
	if s.size+len(text) <= maxKept {
		s.kept, s.size = append(s.kept, text), s.size+len(text)
	}
}

// writeKept writes what is kept as soon as the reader has taken what came before.
func (s *stream) writeKept(idle chan struct{}) {
	defer close(idle)
	for {
		err := <-s.written
		s.mu.Lock()
		if err != nil || len(s.kept) == 0 {
			s.stuck, s.kept, s.size = false, nil, 0
			s.mu.Unlock()
			return
		}
		text := s.kept[0]
		s.kept, s.size = s.kept[1:], s.size-len(text)
		s.mu.Unlock()
		s.texts <- text
	}
}

// flush waits until everything is written. If the reader is gone, the process
// ends meanwhile.
func (s *stream) flush() {
	s.mu.Lock()
	stuck, idle := s.stuck, s.idle
	s.mu.Unlock()
	if stuck {
		<-idle
	}
}
