package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

func TestHistoryThenLiveThenNew(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	for i := range 5 {
		cl.Append("/prices/EURUSD", 0, i)
	}
	sub := subscribe(t, c, "/prices/EURUSD", tidewire.SubOptions{History: 2})
	for _, want := range []string{"3", "4"} {
		if r := next[*tidewire.Record](t, sub); string(r.Value()) != want {
			t.Fatalf("got %s, want %s", r.Value(), want)
		}
	}
	next[*tidewire.Live](t, sub)
	cl.AppendRaw("/prices/EURUSD", 0, `"null":true`)
	cl.AppendRaw("/prices/EURUSD", 0, `"text":"héllo"`)
	cl.AppendRaw("/prices/EURUSD", 0, `"b64":"/w==","headers":{"a":"b","c":{"b64":"/w=="}}`)
	cl.AppendRaw("/prices/EURUSD", 0, `"data":null`)
	if r := next[*tidewire.Record](t, sub); !r.Null || r.Value() != nil {
		t.Fatalf("tombstone: %+v", r)
	}
	if r := next[*tidewire.Record](t, sub); r.Text == nil || string(r.Value()) != "héllo" {
		t.Fatalf("text: %+v", r)
	}
	if r := next[*tidewire.Record](t, sub); string(r.Value()) != "\xff" || string(r.Headers["a"]) != "b" || string(r.Headers["c"]) != "\xff" {
		t.Fatalf("bytes: %+v", r)
	}
	r := next[*tidewire.Record](t, sub)
	if r.Null || string(r.Value()) != "null" {
		t.Fatalf("JSON null: %+v", r)
	}
	want := tidewire.Position{Epoch: 1, Seqno: 9}
	if r.Position != want || r.Prev == nil || r.Prev.Seqno != 8 || r.Time.UnixMilli() != 1700000000009 {
		t.Fatalf("position: %+v", r)
	}
	if v := sub.Vector(); len(v) != 1 || v[0] != want {
		t.Fatalf("vector %v", v)
	}
}

// The client is cut off again and again, by broken connections, stopped nodes and a new epoch, and gets
// every record once, each partition in order.
func TestNothingMissedOrRepeated(t *testing.T) {
	cl := &tidewiretest.Cluster{Partitions: 4}
	c := start(t, cl, 3, nil)
	sub := subscribe(t, c, "/t/*", tidewire.SubOptions{Buffer: 32})
	const records = 3000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range records {
			cl.Append(fmt.Sprintf("/t/%d", i%17), int32(i%4), i)
			switch {
			case i%100 == 50:
				cl.Node(rand.IntN(3)).Cut()
			case i == 1000:
				cl.Node(0).Stop()
				cl.NextEpoch()
			case i == 2000:
				if err := cl.Node(0).Start(); err != nil {
					t.Error(err)
				}
			}
			if i%10 == 0 {
				time.Sleep(time.Millisecond) // so that cuts fall between deliveries
			}
		}
	}()
	last := map[int32]tidewire.Position{}
	seen := map[string]bool{}
	resumed := 0
	for len(seen) < records {
		item, err := sub.Next(deadline(t))
		if err != nil {
			t.Fatalf("after %d records: %v", len(seen), err)
		}
		switch item := item.(type) {
		case *tidewire.Record:
			if l, ok := last[item.Position.Partition]; ok && !item.Position.After(l) {
				t.Fatalf("%s after %s", item.Position, l)
			}
			last[item.Position.Partition] = item.Position
			seen[string(item.Value())] = true
		case *tidewire.Resumed:
			resumed++
		case *tidewire.Gap:
			t.Fatalf("gap: %+v", item)
		}
	}
	<-done
	if resumed == 0 {
		t.Fatal("the client was never cut: the test shows nothing")
	}
}

// An application that does not read gets everything later; another subscription and publishes of the
// same client do not wait for it.
func TestSlowSubscriptionStallsNothing(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	slow := subscribe(t, c, "/slow", tidewire.SubOptions{Buffer: 16})
	quick := subscribe(t, c, "/quick", tidewire.SubOptions{})
	for i := range 200 {
		cl.Append("/slow", 0, i)
	}
	cl.Append("/quick", 0, "x")
	next[*tidewire.Live](t, quick)
	next[*tidewire.Record](t, quick)
	if _, err := c.Publish(deadline(t), "/quick", tidewire.Message{Value: tidewire.Text("y")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slow subscription is ended on the server", func() bool {
		for _, op := range cl.Ops() {
			if op.Op == "unsub" && op.Subject == "/slow" {
				return true
			}
		}
		return false
	})
	next[*tidewire.Live](t, slow)
	for i := range 200 {
		if r := next[*tidewire.Record](t, slow); string(r.Value()) != fmt.Sprint(i) {
			t.Fatalf("record %d is %s", i, r.Value())
		}
	}
	nothing(t, slow)
}

func TestRepeatedRecordsAreDropped(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{})
	next[*tidewire.Live](t, sub)
	cl.Append("/t/k", 0, 1)
	next[*tidewire.Record](t, sub)
	cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,1,1],"ts":1,"data":1}`)
	cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,0,9],"ts":1,"data":0}`)
	cl.Append("/t/k", 0, 2)
	if r := next[*tidewire.Record](t, sub); string(r.Value()) != "2" {
		t.Fatalf("got %s", r.Value())
	}
}

// A record whose prev lies after the vector shows that one was missed: the client asks again from its
// vector, and only if that does not bring it says that it is lost.
func TestHoleIsFilledOrReported(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{})
	next[*tidewire.Live](t, sub)
	cl.Append("/t/k", 0, 1)
	next[*tidewire.Record](t, sub)
	cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,1,5],"prev":[1,4],"ts":1,"data":5}`)
	eventually(t, "the client subscribes again", func() bool {
		ops := cl.Ops()
		last := ops[len(ops)-1]
		return last.Op == "sub" && last.Resume != nil && (*last.Resume)[0] == [3]uint64{0, 1, 1}
	})
	nothing(t, sub)
	var item tidewire.Item
	eventually(t, "the record is taken", func() bool { // what comes before the answer to the sub does not count
		cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,1,5],"prev":[1,4],"ts":1,"data":5}`)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		var err error
		if item, err = sub.Next(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		return err == nil
	})
	gap, ok := item.(*tidewire.Gap)
	if !ok {
		t.Fatalf("got %T %+v, want a gap", item, item)
	}
	if gap.Reason != "missed" || len(gap.Lost) != 1 || gap.Lost[0].From.Seqno != 2 || gap.Lost[0].To.Seqno != 4 {
		t.Fatalf("gap %+v", gap)
	}
	if r := next[*tidewire.Record](t, sub); string(r.Value()) != "5" {
		t.Fatalf("got %s", r.Value())
	}
}

func TestNotRecoveredIsAGap(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	cl.OnOp = func(op *tidewiretest.Op) any {
		if op.Op == "sub" && op.Resume != nil {
			return map[string]any{"op": "subbed", "id": op.ID, "subject": op.Subject, "at": [][]int{{0, 7, 1250}}, "recovered": false,
				"gap": "evicted", "lost": []any{map[string]any{"partition": 0, "from": []int{7, 1200}, "to": []int{7, 1250}}}}
		}
		return nil
	}
	c := start(t, cl, 1, nil)
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{Resume: tidewire.Vector{{0, 7, 1199}}})
	if v := sub.Vector(); len(v) != 1 || v[0].Seqno != 1199 {
		t.Fatalf("vector before anything was read: %v", v)
	}
	gap := next[*tidewire.Gap](t, sub)
	if gap.Reason != "evicted" || gap.Lost[0].From != (tidewire.Position{0, 7, 1200}) || gap.Lost[0].To.Seqno != 1250 {
		t.Fatalf("gap %+v", gap)
	}
	if v := sub.Vector(); v[0].Seqno != 1250 {
		t.Fatalf("vector %v", v)
	}
	// In the stream: only the partition with the gap is named, the others stay.
	cl.Node(0).Send(`{"op":"gap","subject":"/t/k","at":[[0,8,0],[3,8,0]],"reason":"truncated"}`)
	gap = next[*tidewire.Gap](t, sub)
	if gap.Reason != "truncated" || len(gap.At) != 2 || gap.At[0] != (tidewire.Position{0, 8, 0}) {
		t.Fatalf("gap %+v", gap)
	}
	cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,7,1300],"ts":1,"data":"old"}`)
	cl.Node(0).Send(`{"op":"msg","subject":"/t/k","pos":[0,8,1],"ts":1,"data":"new"}`)
	if r := next[*tidewire.Record](t, sub); string(r.Value()) != `"new"` {
		t.Fatalf("got %s", r.Value())
	}
}

func TestServerEndsSubscription(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{})
	next[*tidewire.Live](t, sub)
	cl.Node(0).Send(`{"op":"unsubbed","subject":"/t/k","reason":"topic_gone"}`)
	var ended *tidewire.UnsubscribedError
	if _, err := sub.Next(deadline(t)); !errors.As(err, &ended) || ended.Reason != "topic_gone" {
		t.Fatalf("got %v", err)
	}
}

func TestRefusedAndRetriedSubscriptions(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	tries := 0
	cl.OnOp = func(op *tidewiretest.Op) any {
		switch {
		case op.Subject == "/no":
			return map[string]any{"op": "error", "id": op.ID, "code": "bad_subject", "message": "no topic no"}
		case op.Subject == "/later" && op.Op == "sub":
			if tries++; tries < 3 {
				return map[string]any{"op": "error", "id": op.ID, "code": "unavailable", "message": "wait", "retry_ms": 5}
			}
		}
		return nil
	}
	c := start(t, cl, 1, nil)
	var refused *tidewire.Error
	if _, err := c.Subscribe(deadline(t), "/no", tidewire.SubOptions{}); !errors.As(err, &refused) || refused.Code != tidewire.CodeBadSubject {
		t.Fatalf("got %v", err)
	}
	subscribe(t, c, "/later", tidewire.SubOptions{})
}

func TestOverlapIsRefused(t *testing.T) {
	c := start(t, &tidewiretest.Cluster{}, 1, nil)
	for i, pair := range [][2]string{{"/a/*", "/a/b"}, {"/b", "/b"}, {"/c/d/e", "/c/d/*"}, {"/d", "/d/*"}, {"/e/x/*", "/e/*"}} {
		sub := subscribe(t, c, pair[0], tidewire.SubOptions{})
		if _, err := c.Subscribe(deadline(t), pair[1], tidewire.SubOptions{}); !errors.Is(err, tidewire.ErrOverlap) {
			t.Errorf("%d %v: %v", i, pair, err)
		}
		sub.Close()
		subscribe(t, c, pair[1], tidewire.SubOptions{})
	}
	subscribe(t, c, "/x/y", tidewire.SubOptions{})
	subscribe(t, c, "/x/y/*", tidewire.SubOptions{})
}
