package database

import (
	"context"
	"iter"
	"runtime"
	"sync"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// A batch is what a worker gets at a time. It has the bounds below, beyond which
// it has one more row.
const (
	batchRows  = 256
	batchBytes = 256 << 10
)

// A batch is some rows of certificates, which share one buffer.
type batch struct {
	buffer []byte
	rows   []span
}

// A span says where the key, the certificate and the data of a row end in the
// buffer of its batch.
type span struct {
	key, der, data int
	err            error
	revoked, has   bool // has: the data came with the row
}

func (b *batch) full() bool { return len(b.rows) >= batchRows || len(b.buffer) >= batchBytes }

func (b *batch) add(r *row) {
	b.buffer = append(append(append(b.buffer, r.key...), r.der...), r.data...)
	end, err := len(b.buffer), r.err
	if len(r.der) == 0 && err == nil { // as Badger reads what is missing in a value log
		err = errNoValue
	}
	b.rows = append(b.rows, span{
		key: end - len(r.data) - len(r.der), der: end - len(r.data), data: end, err: err, revoked: r.revoked, has: r.data != nil,
	})
}

// each calls look for every certificate in the batch, until it returns false.
func (b *batch) each(s *Snapshot, look func(*Issued) bool) {
	i, start := Issued{from: s}, 0
	for _, r := range b.rows {
		i.Serial, i.DER, i.data = string(b.buffer[start:r.key]), b.buffer[r.key:r.der:r.der], nil
		if i.Err, i.Revoked = r.err, r.revoked; r.has {
			i.data = b.buffer[r.der:r.data:r.data]
		}
		if start = r.data; !look(&i) {
			return
		}
	}
}

// A task is a batch with what look has kept of it.
type task[T any] struct {
	in   *batch
	out  []T
	err  error // the last
	done chan struct{}
}

// run looks at the batch.
func (t *task[T]) run(ctx context.Context, s *Snapshot, look func(*Issued) (T, bool)) {
	defer close(t.done)
	defer problem.Recover(&t.err)
	t.in.each(s, func(i *Issued) bool {
		if kept, ok := look(i); ok {
			t.out = append(t.out, kept)
		}
		return ctx.Err() == nil
	})
}

// Map calls look for every certificate, on all processors at once, and yields
// what it has kept, in the order of the database. An error is the last that it
// yields; it is ErrInterrupted once ctx has ended. A panic in look is an error.
// A few batches of some hundred certificates are in memory at a time. When the
// loop is left, nothing runs any more, unless ctx has ended.
func Map[T any](ctx context.Context, s *Snapshot, look func(*Issued) (T, bool)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		outer := ctx
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer func() {
			if cancel(); outer.Err() == nil {
				running.Wait()
			}
		}()
		for t := range tasks(ctx, s, look, &running) {
			select {
			case <-t.done:
			case <-outer.Done():
			}
			if outer.Err() != nil {
				break
			}
			for _, kept := range t.out {
				if !yield(kept, nil) {
					return
				}
			}
			if t.err != nil {
				yield(*new(T), t.err)
				return
			}
		}
		if outer.Err() != nil {
			yield(*new(T), problem.ErrInterrupted)
		}
	}
}

// tasks reads the database and has workers run the tasks that it returns, in
// order. The goroutines count as running, and as users of the snapshot.
func tasks[T any](ctx context.Context, s *Snapshot, look func(*Issued) (T, bool), running *sync.WaitGroup) <-chan *task[T] {
	workers := runtime.GOMAXPROCS(0)
	work, ordered := make(chan *task[T], workers), make(chan *task[T], 3*workers)
	pool := sync.Pool{New: func() any {
		return &batch{buffer: make([]byte, 0, batchBytes+batchBytes/4), rows: make([]span, 0, batchRows)}
	}}
	start := func(run func()) {
		s.busy.Add(1)
		running.Go(func() {
			defer s.busy.Done()
			run()
		})
	}
	for range workers {
		start(func() {
			for t := range work {
				t.run(ctx, s, look)
				t.in.buffer, t.in.rows = t.in.buffer[:0], t.in.rows[:0]
				pool.Put(t.in)
			}
		})
	}
	start(func() {
		defer close(ordered)
		defer close(work)
		send := func(t *task[T], to chan<- *task[T]) {
			select {
			case to <- t:
			case <-ctx.Done():
			}
		}
		in := pool.Get().(*batch)
		flush := func() {
			t := &task[T]{in: in, done: make(chan struct{})}
			send(t, ordered)
			send(t, work)
			in = pool.Get().(*batch)
		}
		err := guarded(func() error {
			return s.source.each(ctx, func(r *row) error {
				if in.add(r); in.full() {
					flush()
				}
				return ctx.Err()
			})
		})
		flush()
		if err != nil {
			t := &task[T]{err: err, done: make(chan struct{})}
			close(t.done)
			send(t, ordered)
		}
	})
	return ordered
}
