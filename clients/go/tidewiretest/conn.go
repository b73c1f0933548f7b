package tidewiretest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// conn is one client's connection to one node.
type conn struct {
	node *Node
	ws   *websocket.Conn
	ctx  context.Context
	wg   sync.WaitGroup
	subs map[string]func() // end a subscription and wait; only the reading goroutine touches it
}

func (c *conn) write(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	c.ws.Write(c.ctx, websocket.MessageText, b)
}

type object = map[string]any

func (c *conn) serve() {
	cl := c.node.cluster
	c.write(object{
		"op": "welcome", "version": 1, "node": c.node.Name, "session": "s", "auth": cmp.Or(cl.Auth, "none"),
		"heartbeat_ms": cmp.Or(cl.HeartbeatMS, 25000), "max_frame_bytes": cmp.Or(cl.MaxFrame, 1<<20),
	})
	for {
		_, frame, err := c.ws.Read(c.ctx)
		if err != nil {
			return
		}
		for _, line := range bytes.Split(frame, []byte("\n")) {
			var op Op
			if err := json.Unmarshal(line, &op); err != nil {
				c.write(object{"op": "error", "code": "bad_request", "message": err.Error()})
				continue
			}
			c.answer(&op, cl.heard(&op))
		}
	}
}

// heard notes an op, and returns how many records there are before it: who sees a sub among the Ops may append what its
// subscription gets.
func (cl *Cluster) heard(op *Op) (head int) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.ops = append(cl.ops, *op)
	return len(cl.records)
}

func (c *conn) answer(op *Op, head int) {
	cl := c.node.cluster
	if cl.OnOp != nil {
		if a := cl.OnOp(op); a == Silent {
			return
		} else if a != nil {
			c.write(a)
			return
		}
	}
	switch op.Op {
	case "auth":
		c.write(object{"op": "authed", "id": op.ID, "expires": nil})
	case "ping":
		c.write(object{"op": "pong", "id": op.ID})
	case "sub":
		c.subscribe(op, head)
	case "unsub":
		end, ok := c.subs[op.Subject]
		if !ok {
			c.write(object{"op": "error", "id": op.ID, "code": "not_subscribed", "message": "not subscribed"})
			return
		}
		end()
		delete(c.subs, op.Subject)
		c.write(object{"op": "unsubbed", "id": op.ID, "subject": op.Subject, "reason": "asked"})
	case "pub":
		c.publish(op)
	default:
		c.write(object{"op": "error", "id": op.ID, "code": "bad_request", "message": "unknown op " + op.Op})
	}
}

func (c *conn) publish(op *Op) {
	cl := c.node.cluster
	r := Record{Subject: op.Subject, Headers: op.Headers}
	switch {
	case op.Data != nil:
		r.Value = json.RawMessage(`"data":` + string(op.Data))
	case op.Text != nil:
		b, _ := json.Marshal(*op.Text)
		r.Value = json.RawMessage(`"text":` + string(b))
	case op.B64 != nil:
		r.Value = json.RawMessage(`"b64":"` + *op.B64 + `"`)
	default:
		r.Value = json.RawMessage(`"null":true`)
	}
	cl.mu.Lock()
	seen, duplicate := cl.mids[op.Mid]
	if duplicate && op.Mid != "" {
		r = seen
	} else {
		r = cl.appendLocked(r)
		if op.Mid != "" {
			cl.mids[op.Mid] = r
		}
	}
	cl.mu.Unlock()
	a := object{"op": "acked", "id": op.ID, "partition": r.Partition, "offset": r.Seqno - 1, "pos": [3]uint64{uint64(r.Partition), r.Epoch, r.Seqno}}
	if duplicate {
		a["duplicate"] = true
	}
	c.write(a)
}

// subscribe answers sub and starts the goroutine that delivers. head is how many records there were before it.
func (c *conn) subscribe(op *Op, head int) {
	cl := c.node.cluster
	if _, ok := c.subs[op.Subject]; ok {
		c.write(object{"op": "error", "id": op.ID, "code": "already_subscribed", "message": op.Subject})
		return
	}
	type place struct{ epoch, seqno uint64 }
	at := make([]place, cl.Partitions)
	cl.mu.Lock()
	start := head
	if op.Resume != nil {
		start = 0
		for _, p := range *op.Resume {
			at[p[0]] = place{p[1], p[2]}
		}
	} else {
		for n := op.History; start > 0 && n != 0; {
			start--
			if matches(op.Subject, cl.records[start].Subject) {
				n--
			}
		}
		for _, r := range cl.records[:start] {
			at[r.Partition] = place{r.Epoch, r.Seqno}
		}
	}
	cl.mu.Unlock()
	vector := make([][3]uint64, len(at))
	for i, p := range at {
		vector[i] = [3]uint64{uint64(i), p.epoch, p.seqno}
	}
	a := object{"op": "subbed", "id": op.ID, "subject": op.Subject, "at": vector}
	if op.Resume != nil {
		a["recovered"] = true
	}
	c.write(a)

	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	c.subs[op.Subject] = func() { cancel(); <-ended }
	c.wg.Go(func() {
		defer close(ended)
		prev := map[string]place{}
		live := false
		for i := 0; ; {
			cl.mu.Lock()
			grew := cl.grew
			records := cl.records[i:]
			cl.mu.Unlock()
			for _, r := range records {
				if ctx.Err() != nil {
					return
				}
				if i == head && !live {
					live = true
					c.write(object{"op": "live", "subject": op.Subject})
				}
				i++
				if !matches(op.Subject, r.Subject) {
					continue
				}
				key := fmt.Sprint(r.Partition, r.Subject)
				before := prev[key]
				prev[key] = place{r.Epoch, r.Seqno}
				p := at[r.Partition]
				if r.Epoch < p.epoch || r.Epoch == p.epoch && r.Seqno <= p.seqno {
					continue
				}
				if cl.Delay > 0 {
					time.Sleep(cl.Delay)
				}
				c.write(json.RawMessage(msg(r, before.epoch, before.seqno)))
			}
			if i >= head && !live {
				live = true
				c.write(object{"op": "live", "subject": op.Subject})
			}
			if len(records) > 0 {
				continue
			}
			select {
			case <-grew:
			case <-ctx.Done():
				return
			}
		}
	})
}

// msg is a record's frame.
func msg(r Record, prevEpoch, prevSeqno uint64) string {
	subject, _ := json.Marshal(r.Subject)
	s := fmt.Sprintf(`{"op":"msg","subject":%s,"pos":[%d,%d,%d],`, subject, r.Partition, r.Epoch, r.Seqno)
	if prevEpoch > 0 {
		s += fmt.Sprintf(`"prev":[%d,%d],`, prevEpoch, prevSeqno)
	}
	s += fmt.Sprintf(`"ts":%d,%s`, 1700000000000+r.Seqno, r.Value)
	if len(r.Headers) > 0 {
		h, _ := json.Marshal(r.Headers)
		s += `,"headers":` + string(h)
	}
	return s + "}"
}
