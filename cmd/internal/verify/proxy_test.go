package verify

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// fault is what a proxy does to one msg frame.
type fault func(frame, payload []byte) [][]byte

// proxy stands between recorders and a node, and does a fault to one msg frame of one connection.
type proxy struct {
	l      net.Listener
	to     string
	fault  fault
	after  int64 // msg frames that pass first
	passed atomic.Int64
	done   atomic.Bool
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func startProxy(t *testing.T, to string, after int64, f fault) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: to, fault: f, after: after}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() { io.Copy(server, client); server.Close() })
	defer up.Wait()
	defer client.Close()
	in := bufio.NewReader(server)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.Write(client) != nil {
		return
	}
	for {
		frame, payload, err := readFrame(in)
		if err != nil {
			return
		}
		out := [][]byte{frame}
		if bytes.HasPrefix(payload, []byte(`{"op":"msg"`)) && p.passed.Add(1) > p.after && p.done.CompareAndSwap(false, true) {
			out = p.fault(frame, payload)
		}
		for _, b := range out {
			if _, err := client.Write(b); err != nil {
				return
			}
		}
	}
}

// readFrame reads one unmasked frame of RFC 6455 that is not a fragment.
func readFrame(in *bufio.Reader) (frame, payload []byte, err error) {
	head := make([]byte, 2, 10)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if more := map[uint64]int{126: 2, 127: 8}[n]; more > 0 {
		head = head[:2+more]
		if _, err := io.ReadFull(in, head[2:]); err != nil {
			return nil, nil, err
		}
		n = 0
		for _, b := range head[2:] {
			n = n<<8 | uint64(b)
		}
	}
	frame = append(head, make([]byte, n)...)
	payload = frame[len(head):]
	_, err = io.ReadFull(in, payload)
	return frame, payload, err
}

// textFrame makes a frame of a text.
func textFrame(payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(len(payload)))
	return append(b, payload...)
}

// faults that a proxy can do, with what the judge must call them.
var faults = map[string]struct {
	kind Kind
	do   fault
}{
	"a msg dropped":    {Lost, func(_, _ []byte) [][]byte { return nil }},
	"a msg sent twice": {Repeated, func(frame, _ []byte) [][]byte { return [][]byte{frame, frame} }},
	"a gap invented": {FalseLoss, func(frame, payload []byte) [][]byte {
		at := payload[bytes.Index(payload, []byte(`"pos":`))+6:]
		at = at[:bytes.IndexByte(at, ']')+1]
		subject := payload[bytes.Index(payload, []byte(`"subject":`)):]
		subject = subject[:bytes.Index(subject, []byte(`,"pos"`))]
		return [][]byte{textFrame([]byte(`{"op":"gap",` + string(subject) + `,"at":[` + string(at) + `],"reason":"truncated"}`))}
	}},
	"a value changed": {Damaged, func(frame, payload []byte) [][]byte {
		return [][]byte{textFrame(bytes.Replace(payload, []byte(`"data":{`), []byte(`"data":{ `), 1)), nil}
	}},
}

// A stream that is broken between a sound cluster and its subscribers is found out: the recorders add no
// mercy of their own.
func brokenStreams(t *testing.T, c *aCluster) {
	for _, name := range sortedKeys(faults) {
		f := faults[name]
		t.Run(name, func(t *testing.T) {
			o := options(t, c, "verify")
			p := startProxy(t, c.addrs[0], 40, f.do)
			if f.kind == Damaged { // not every value has the form that it changes
				p.fault = func(frame, payload []byte) [][]byte {
					if !bytes.Contains(payload, []byte(`"data":{`)) {
						p.done.Store(false)
						return [][]byte{frame}
					}
					return f.do(frame, payload)
				}
			}
			o.Nodes = []string{p.addr()}
			o.CutEvery = -1
			o.Publishers, o.SlowSubs, o.Histories, o.Roamers = 1, -1, -1, -1
			_, h := runWhile(t, o, func(wait func(func(Counters) bool) bool) {
				wait(func(Counters) bool { return p.done.Load() && p.passed.Load() > p.after+100 }) // and something after it
			})
			if !p.done.Load() {
				t.Fatal("the proxy has done nothing")
			}
			r := Judge(h)
			if r.Counts[f.kind] == 0 || len(r.Counts) != 1 {
				t.Errorf("want %s alone:\n%s", f.kind, r.text())
			}
		})
	}
}
