package node

import (
	"testing"
)

// A node that is stopped says bye to everyone, with its own retry_ms and where to go, and closes 1001.
func protocolBye(t *testing.T, c *aCluster, topic string) {
	var conns []*talk
	for i := range 30 {
		k := dial(t, c.addr(0))
		if i%2 == 0 {
			k.sub("/"+topic+"/*", "")
			k.want("live")
		}
		conns = append(conns, k)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); c.stop(0) }()
	spread := map[int64]bool{}
	for _, k := range conns {
		b := k.bytes()
		f := parse(t, b)
		if f.Op != "bye" || f.Reason != "draining" || f.RetryMS < 0 || string(mustField(t, b, "nodes")) != `["ws://a.example/ws","ws://b.example/ws"]` {
			t.Errorf("bye: %s", b)
		}
		spread[f.RetryMS] = true
		if _, ce := k.closed(); ce.Code != 1001 || ce.Reason != "draining" {
			t.Errorf("closed with %v", ce)
		}
	}
	if len(spread) < 5 {
		t.Errorf("retry_ms of 30 connections: %v", spread)
	}
	<-stopped
}
