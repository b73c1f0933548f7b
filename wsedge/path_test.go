package wsedge

import (
	"testing"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// The whole path, as a newcomer meets it: welcome, subscribe, a record, publish, ping, unsubscribe.
func TestTheWholePath(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dialRaw(nil)
	w := c.next()
	if w.Op != "welcome" || w.Version != 1 || w.Node != "n1" || w.Session == "" || w.Heartbeat != 25000 || w.MaxFrame != 1<<20 || w.Auth != "none" {
		t.Fatal(w.raw)
	}
	home := bridge.PartitionFor([]byte("EURUSD"), 4)
	e.node.put("prices", home, []byte("EURUSD"), []byte(`1`))
	c.send(`{"op":"sub","id":1,"subject":"/prices/EURUSD"}`)
	m := c.next()
	if m.Op != "subbed" || m.ID != 1 || len(m.At) != 1 || m.At[0] != [3]uint64{uint64(home), 1, 1} || m.Recovered != nil {
		t.Fatal(m.raw)
	}
	c.expect(`{"op":"live","subject":"/prices/EURUSD"}`)
	e.node.put("prices", home, []byte("EURUSD"), []byte(`{"bid":1.1}`))
	if m = c.next(); m.Op != "msg" || m.Subject != "/prices/EURUSD" || string(m.Data) != `{"bid":1.1}` || m.Pos != [3]uint64{uint64(home), 1, 2} || *m.Prev != [2]uint64{1, 1} {
		t.Fatal(m.raw)
	}
	c.send(`{"op":"pub","id":2,"subject":"/prices/EURUSD","data":{"bid":1.2}}`)
	var acked, msg message
	for range 2 {
		switch m = c.next(); m.Op {
		case "acked":
			acked = m
		case "msg":
			msg = m
		}
	}
	if acked.ID != 2 || acked.Offset != 2 || string(msg.Data) != `{"bid":1.2}` {
		t.Fatal(acked.raw, msg.raw)
	}
	c.send(`{"op":"ping","id":3}`)
	c.expect(`{"op":"pong","id":3}`)
	c.send(`{"op":"auth","id":4,"token":"x"}`)
	c.expect(`{"op":"authed","id":4,"expires":null}`)
	c.send(`{"op":"unsub","id":5,"subject":"/prices/EURUSD"}`)
	c.expect(`{"op":"unsubbed","id":5,"subject":"/prices/EURUSD","reason":"asked"}`)
	e.node.put("prices", home, []byte("EURUSD"), []byte(`2`))
	c.send(`{"op":"ping"}`)
	c.expect(`{"op":"pong"}`)
}
