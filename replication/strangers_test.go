package replication

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// send opens a connection to a node, writes b and returns when the node has closed it or answered.
func send(t *testing.T, addr string, b []byte) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write(b)
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 64))
}

// Whatever arrives at the port, the cluster goes on as if nothing had.
func TestStrangersHarmNobody(t *testing.T) {
	c := newCluster(t, 3, 2, inMemory)
	l := c.waitLeader(0)
	c.propose(0, "before")
	c.waitSame(0, 1)
	raft0 := preface{kind: kindRaft, group: 0}.encode()
	huge := binary.BigEndian.AppendUint32([]byte{0xc6}, 1<<32-1) // msgpack: 4 GiB of bytes
	messages := [][]byte{
		nil,
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		[]byte("TD"),
		append([]byte("TDWR"), 9, 1, 0, 0),
		preface{kind: kindRaft, group: 2}.encode(),
		preface{kind: kindRaft, group: 0xffff}.encode(),
		preface{kind: 77}.encode(),
		preface{kind: kindGRPC}.encode(),
		append(preface{kind: kindGRPC}.encode(), bytes.Repeat([]byte{0xff}, 1000)...),
		append(preface{kind: kindLiveness}.encode(), bytes.Repeat([]byte{1}, 1000)...),
		raft0,
		append(slices.Clone(raft0), 99),
	}
	for kind := range byte(5) {
		for _, body := range [][]byte{
			{0xdf, 0xff, 0xff, 0xff, 0xff},   // a map of 4 G entries
			{0xdd, 0xff, 0xff, 0xff, 0xff},   // an array of 4 G entries
			{0xc0},                           // nil
			{0xc1},                           // not msgpack
			{0x81, 0xa4, 'T', 'e', 'r', 'm'}, // cut
			append([]byte{0x81, 0xa7}, append([]byte("Entries"), 0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0, 0xc0)...),
			append([]byte{0x81, 0xa6}, append([]byte("Leader"), huge...)...),
			bytes.Repeat([]byte{0x91}, 5000), // deep nesting
		} {
			messages = append(messages, append(append(slices.Clone(raft0), kind), body...))
		}
	}
	for _, m := range messages {
		send(t, c.peers[l].Addr, m)
		send(t, c.peers[(l+1)%3].Addr, m)
	}
	c.propose(0, "after")
	c.waitSame(0, 2)
	if c.nodes[l].Strangers() == 0 {
		t.Error("no stranger was counted")
	}
}

// A peer that speaks Raft and says what no correct node says: the library would panic at most of these.
func TestMalformedRaftMessagesAreRefused(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory)
	l := c.waitLeader(0)
	c.propose(0, "before")
	c.waitSame(0, 1)
	conns := newConnSet()
	defer conns.close()
	st := newStream(0, "127.0.0.1:1", dialer{conns: conns}, func(bridge.NodeID) *route { return nil })
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: st, MaxPool: 1, Timeout: 5 * time.Second, MaxRPCsInFlight: 1, Logger: newRaftLog(testLog(), 0)})
	defer func() { _ = tr.Close(); tr.CloseStreams() }()
	follower := (l + 1) % 3
	g := c.nodes[follower].groups[0]
	last := g.raft.LastIndex()
	term := g.raft.CurrentTerm()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.peers[l].ID), Addr: []byte(c.peers[l].Addr)}
	for name, entries := range map[string][]*raft.Log{
		"nil":           {nil},
		"type":          {{Index: last + 1, Term: term, Type: 77}},
		"peers":         {{Index: last + 1, Term: term, Type: raft.LogAddPeerDeprecated, Data: []byte("x")}},
		"configuration": {{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: []byte{0xc1}}},
		"no servers":    {{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{})}},
		"gap":           {{Index: last + 7, Term: term}},
		"term":          {{Index: last + 1, Term: term + 9}},
		"too many":      slices.Repeat([]*raft.Log{{Index: last + 1, Term: term}}, maxAppendEntries+1),
	} {
		req := &raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: last, PrevLogTerm: term, Entries: entries, LeaderCommitIndex: last + 1}
		var resp raft.AppendEntriesResponse
		if err := tr.AppendEntries("x", raft.ServerAddress(c.peers[follower].Addr), req, &resp); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, req := range map[string]*raft.InstallSnapshotRequest{
		"size":          {RPCHeader: header, SnapshotVersion: 1, Term: term, Size: 1 << 40},
		"negative":      {RPCHeader: header, SnapshotVersion: 1, Term: term, Size: -1},
		"configuration": {RPCHeader: header, SnapshotVersion: 1, Term: term, Configuration: []byte{0xc1}},
		"version":       {RPCHeader: header, SnapshotVersion: 0, Term: term, Peers: []byte{1}},
	} {
		var resp raft.InstallSnapshotResponse
		if err := tr.InstallSnapshot("x", raft.ServerAddress(c.peers[follower].Addr), req, &resp, bytes.NewReader(nil)); err == nil {
			t.Errorf("snapshot: %s: accepted", name)
		}
	}
	c.propose(0, "after")
	c.waitSame(0, 2)
}

func FuzzPreface(f *testing.F) {
	f.Add(preface{kind: kindRaft, group: 7}.encode())
	f.Add([]byte("TDWR\x01\x02\x00\x00"))
	f.Add(preface{kind: kindRaft, group: 7, to: "n1"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPreface(bytes.NewReader(b))
		if e := p.encode(); err == nil && !bytes.HasPrefix(b, e) {
			t.Errorf("%x was read as %+v", b, p)
		}
	})
}

// What a peer may make us read between two answers is bounded.
func TestLimitConn(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	c := newLimitConn(a, 10)
	go func() {
		for range 4 {
			_, _ = b.Write(make([]byte, 5))
		}
	}()
	buf := make([]byte, 5)
	for range 2 {
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Read(buf); err != errMessageTooLarge {
		t.Errorf("over the limit: %v", err)
	}
	go func() { _, _ = io.ReadFull(b, make([]byte, 1)) }()
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Errorf("after an answer: %v", err)
	}
}
