//go:build unix

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// faulty is the common part of a proxy and a relay.
type faulty struct {
	ca       *scriptCA
	upstream string // where it relays to, unless that is the CA
	log      string
	address  string
	serve    func(net.Listener)

	listener net.Listener

	mu     sync.Mutex
	queues map[string][]string
}

func newFaulty(ts *testscript.TestScript, name string) *faulty {
	f := &faulty{ca: current(ts), log: ts.MkAbs(name + ".log"), address: freeAddress(), queues: map[string][]string{}}
	_, port, _ := net.SplitHostPort(f.address)
	ts.Setenv(name+"_url", "https://127.0.0.1:"+port)
	ts.Setenv(name+"_alias", "https://localhost:"+port)
	ts.Setenv(name+"_address", f.address)
	ts.Check(os.WriteFile(f.log, nil, 0o600))
	ts.Value(scriptKey{}).(*script).faulty[name] = f
	ts.Defer(func() { f.listener.Close() })
	return f
}

// listen starts to serve.
func (f *faulty) listen() (err error) {
	if f.listener, err = net.Listen("tcp", f.address); err == nil {
		go f.serve(f.listener)
	}
	return err
}

func cmdFaults(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: faults NAME WHAT FAULT...")
	}
	f := ts.Value(scriptKey{}).(*script).faulty[args[0]]
	if f == nil {
		ts.Fatalf("there is no proxy or relay %s", args[0])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queues[args[1]] = args[2:]
}

// next returns the fault for the next request of this kind.
func (f *faulty) next(what string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	queue := f.queues[what]
	if len(queue) == 0 {
		return "pass"
	}
	if len(queue) != 2 || queue[1] != "..." {
		f.queues[what] = queue[1:]
	}
	return queue[0]
}

// awaitGo waits for the command "faults NAME held go".
func (f *faulty) awaitGo() {
	for f.next("held") != "go" {
		time.Sleep(10 * time.Millisecond)
	}
}

// note writes a line to the log.
func (f *faulty) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if file, err := os.OpenFile(f.log, os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintf(file, format+"\n", args...)
		file.Close()
	}
}

// A proxy terminates TLS and hands on HTTP requests.
type proxy struct {
	*faulty
	client *http.Client
}

type connKey struct{}

func cmdProxy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 || len(args) == 2 && args[1] != "http1" {
		ts.Fatalf("usage: proxy NAME [http1]")
	}
	if f := ts.Value(scriptKey{}).(*script).faulty[args[0]]; f != nil {
		ts.Check(f.listen())
		return
	}
	f := newFaulty(ts, args[0])
	crt, key := ts.MkAbs(args[0]+".crt"), ts.MkAbs(args[0]+".key")
	ts.Check(f.ca.issue(ts.MkAbs(args[0]), []string{"127.0.0.1", "localhost"}))
	client, err := f.ca.client()
	ts.Check(err)
	p := &proxy{faulty: f, client: client}
	server := &http.Server{
		Handler: p,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(len(args) == 1)
	ts.Defer(func() { server.Close() })
	f.serve = func(l net.Listener) { _ = server.ServeTLS(l, crt, key) }
	ts.Check(f.listen())
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	what, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/1.0"), "/"), "/")
	fault := p.next(what)
	p.note("%s %s", what, fault)
	switch fault {
	case "reset":
		resetConnection(r)
	case "hang":
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case "chaos":
		time.Sleep(rand.N(10 * time.Millisecond)) // the latency
		switch n := rand.N(100); {
		case n < 10:
			resetConnection(r)
		case n < 30:
			fault = "drop"
		}
	case "hold":
		p.awaitGo()
	}
	if status, err := strconv.Atoi(fault[:min(3, len(fault))]); err == nil {
		seconds, _ := strconv.Atoi(fault[min(4, len(fault)):])
		switch {
		case strings.Contains(fault, ":"):
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
		case strings.Contains(fault, "@"):
			w.Header().Set("Retry-After", time.Now().Add(time.Duration(seconds)*time.Second).UTC().Format(http.TimeFormat))
		}
		answerHTML(w, status)
		return
	}
	p.forward(w, r, body, fault)
}

// forward asks the CA and does to its answer what the fault says.
func (p *proxy) forward(w http.ResponseWriter, r *http.Request, body []byte, fault string) {
	req, err := http.NewRequest(r.Method, "https://"+p.ca.address+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header = r.Header
	resp, err := p.client.Do(req)
	if err != nil {
		answerHTML(w, http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	p.note("answered %s %d", fault, resp.StatusCode)
	switch fault {
	case "spoil":
		answerHTML(w, http.StatusInternalServerError)
		return
	case "lose":
		resetConnection(r)
	case "drop":
		panic(http.ErrAbortHandler)
	case "leave":
		p.listener.Close()
		w.Header().Set("Connection", "close")
	case "late":
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), resp.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(resp.StatusCode)
	if fault == "truncate" {
		_, _ = w.Write(answer[:len(answer)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(answer)
}

func answerHTML(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\n<h1>%s</h1>\n</html>\n", http.StatusText(status))
}

// resetConnection ends the handler, and the TCP connection with a reset.
func resetConnection(r *http.Request) {
	reset(r.Context().Value(connKey{}).(*tls.Conn).NetConn())
	panic(http.ErrAbortHandler)
}

func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func cmdRelay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: relay NAME [ADDRESS]")
	}
	f := newFaulty(ts, args[0])
	if len(args) == 2 {
		f.upstream = args[1]
	}
	f.serve = func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fault := f.next("connection")
			f.note("connection %s", fault)
			go f.relay(conn, fault)
		}
	}
	ts.Check(f.listen())
}

// relay copies the bytes of one connection in both directions.
func (f *faulty) relay(client net.Conn, fault string) {
	defer reset(client)
	switch fault {
	case "reset":
		return
	case "silent":
		_, _ = io.Copy(io.Discard, client)
		return
	}
	upstream, err := net.Dial("tcp", cmp.Or(f.upstream, f.ca.address))
	if err != nil {
		return
	}
	defer upstream.Close()
	var answered, held atomic.Bool
	go func() {
		defer client.Close()
		for buffer := make([]byte, 64<<10); ; {
			n, err := upstream.Read(buffer)
			if err != nil {
				return
			}
			answered.Store(true)
			if !held.Load() {
				_, _ = client.Write(buffer[:n])
			}
		}
	}()
	log := f.ca.dir + ".log"
	before := revocationsIn(log)
	for buffer := make([]byte, 64<<10); ; {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if text, ok := strings.CutPrefix(fault, "stop="); ok && bytes.Contains(buffer[:n], []byte(text)) {
			f.note("stopped")
			_, _ = io.Copy(io.Discard, client)
			return
		}
		if text, ok := strings.CutPrefix(fault, "hold="); ok && bytes.Contains(buffer[:n], []byte(text)) {
			f.note("held")
			f.awaitGo()
		}
		// With TLS 1.3 the client needs no more of the CA once it sends more than a
		// mere change_cipher_spec (RFC 8446, appendix D.4): that is the request.
		if fault == "lose" && answered.Load() && n > 6 && !held.Swap(true) {
			go func() {
				for range time.Tick(10 * time.Millisecond) {
					if revocationsIn(log) > before {
						f.note("answered lose")
						reset(client)
						return
					}
				}
			}()
		}
		request := buffer[:n]
		if fault == "garble" && answered.Load() && n > 6 {
			request, fault = append(readQuickly(client, request), garbage...), "pass"
		}
		if _, err := upstream.Write(request); err != nil {
			return
		}
	}
}

// garbage is a record of TLS that nobody has encrypted.
var garbage = append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)

// readQuickly reads what comes without a pause.
func readQuickly(conn net.Conn, begin []byte) []byte {
	all := bytes.Clone(begin)
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	for more := make([]byte, 64<<10); ; {
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := conn.Read(more)
		if all = append(all, more[:n]...); err != nil {
			return all
		}
	}
}

// revocationsIn counts the requests to revoke in a CA's log.
func revocationsIn(log string) int {
	b, _ := os.ReadFile(log)
	return bytes.Count(b, []byte("path=/revoke"))
}

func cmdFull(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: full NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	ts.Check(err)
	ts.Check(raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }))
	ts.Check(err)
	for range 1000 {
		conn, err := net.DialTimeout("tcp", l.Addr().String(), 500*time.Millisecond)
		if err != nil {
			ts.Setenv(args[0], l.Addr().String())
			return
		}
		ts.Defer(func() { conn.Close() })
	}
	ts.Fatalf("its backlog is never full")
}

// listeners maps addresses to the *listener that the command listen has made.
var listeners sync.Map

type listener struct{ connections atomic.Int32 }

func cmdListen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	counted := &listener{}
	listeners.Store(l.Addr().String(), counted)
	ts.Setenv(args[0], l.Addr().String())
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			counted.connections.Add(1)
			conn.Close()
		}
	}()
}

func cmdContacted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] contacted NAME")
	}
	l, ok := listeners.Load(ts.Getenv(args[0]))
	if !ok {
		ts.Fatalf("nobody listens on %s", args[0])
	}
	if n := l.(*listener).connections.Load(); (n == 0) != neg {
		ts.Fatalf("%d connections to %s", n, args[0])
	}
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: serve NAME DIR")
	}
	server := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[1]))))
	ts.Defer(server.Close)
	ts.Setenv(args[0]+"_url", server.URL)
}
