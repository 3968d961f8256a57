package main

import (
	"context"
	"net"
	"sync"
)

// A gathering connection hands its caller back at once, and writes what comes
// in while it is writing in one piece afterwards. HTTP/2 writes each request in
// two pieces, and many requests at the same time: that saves most system calls,
// here and at the CA.
type gatheringConn struct {
	net.Conn
	mu      sync.Mutex
	pending []byte // what is not written yet
	writing bool
	err     error // of a write, which ends all others
}

func dialGathering(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &gatheringConn{Conn: conn}, nil
}

func (c *gatheringConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.pending = append(c.pending, b...)
	if !c.writing {
		c.writing = true
		go c.flush()
	}
	return len(b), nil
}

func (c *gatheringConn) flush() {
	var spare []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) > 0 && c.err == nil {
		out := c.pending
		c.pending = spare[:0]
		c.mu.Unlock()
		_, err := c.Conn.Write(out)
		c.mu.Lock()
		c.err, spare = err, out
	}
	c.writing = false
}
