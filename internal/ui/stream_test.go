package ui

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// TestStuck shows that after a signal nobody waits for a reader that does not
// read, and that it gets everything all the same if it goes on.
func TestStuck(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer func(before chan struct{}) { hurry = before }(hurry)
	hurry = make(chan struct{})
	s := newStream(w)
	line := strings.Repeat("x", 9999) + "\n"
	const lines = 100 // more than a pipe holds
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range lines {
			if n, err := s.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("wrote %d bytes, error %v", n, err)
			}
		}
	}()
	close(hurry)
	<-written
	read := make(chan int)
	go func() {
		n := 0
		for in := bufio.NewScanner(r); n < lines+1 && in.Scan(); n++ {
		}
		read <- n
	}()
	s.flush()
	if _, err := s.Write([]byte("afterwards\n")); err != nil {
		t.Error(err)
	}
	if n := <-read; n != lines+1 {
		t.Errorf("%d lines, want %d", n, lines+1)
	}
	w.Close()
	if _, err := s.Write([]byte(line)); err == nil {
		t.Error("no error for a file that is closed")
	}
}
