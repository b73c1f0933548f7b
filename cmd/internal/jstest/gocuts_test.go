package jstest

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestCutsWithNodeChanges of the Go client, before the same judge.
func TestGoCutsWithNodeChanges(t *testing.T) {
	cuts := cutsWanted(t)
	const topic, chat, partitions = "prices", "chat", 3
	kafka := kafkatest.Fake(t, kfake.SeedTopics(partitions, topic, chat))
	nodes := startNodes(t, kafka.Brokers(), topic+","+chat, chat)
	ctx, cancel := context.WithTimeout(t.Context(), waitTime+time.Duration(cuts)*time.Second)
	defer cancel()

	j := newJudge()
	var mu sync.Mutex // guards j
	tell := func(e event) {
		mu.Lock()
		defer mu.Unlock()
		if err := j.event(e); err != nil {
			t.Errorf("%v, after %d messages", err, j.messages)
			cancel()
		}
	}
	sockets := &cuttable{}
	last := ""
	c, err := tidewire.New(tidewire.Config{
		Nodes: nodes, HTTPClient: &http.Client{Transport: &http.Transport{DialContext: sockets.dial}},
		BackoffBase: 5 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		OnState: func(s tidewire.State) {
			if s.Connected && last != "" {
				tell(event{Event: "moved", From: last, To: s.Addr})
			}
			if s.Connected {
				last = s.Addr
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()

	// A subscription's state changes are counted, as the script for the other client does.
	resumed := [2]chan struct{}{make(chan struct{}, cuts+1), make(chan struct{}, cuts+1)}
	live := make(chan struct{}, 2)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	for i, name := range []string{topic, chat} {
		sub, err := c.Subscribe(ctx, "/"+name+"/*", tidewire.SubOptions{})
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			for item, err := range sub.All(ctx) {
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
						cancel()
					}
					return
				}
				switch item := item.(type) {
				case *tidewire.Record:
					p := item.Position
					tell(event{Event: "msg", Topic: name, Subject: item.Subject, Pos: [3]uint64{uint64(p.Partition), p.Epoch, p.Seqno}, Value: json.RawMessage(item.Value())})
				case *tidewire.Resumed:
					select {
					case resumed[i] <- struct{}{}:
					default: // a node that loses its majority for a moment sends clients away, too
					}
				case *tidewire.Live:
					select {
					case live <- struct{}{}:
					default: // it is looked for at the beginning alone
					}
				case *tidewire.Gap:
					tell(event{Event: "gap", Topic: name, Reason: item.Reason})
				}
			}
		})
	}
	wait := func(what string, ch <-chan struct{}) {
		select {
		case <-ch:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s: %v", what, context.Cause(ctx))
		}
	}
	wait("live", live)
	wait("live", live)
	stop := produce(t, kafka.Brokers(), topic)

	// Four subjects, several of each under way, in the order of the numbers.
	cutting, ended := context.WithCancel(ctx)
	defer ended()
	var publishers sync.WaitGroup
	for _, key := range []string{"a", "b", "c", "d"} {
		publishers.Go(func() {
			var under []*tidewire.Pending
			first := 0 // the number of under[0]
			ack := func() {
				if _, err := under[0].Wait(ctx); err != nil {
					tell(event{Event: "refused", Key: key, Error: err.Error()})
				}
				tell(event{Event: "acked", Key: key, N: first})
				under, first = under[1:], first+1
			}
			for n := 0; cutting.Err() == nil; n++ {
				m := tidewire.Message{Value: tidewire.JSON(map[string]int{"n": n}), Ack: tidewire.AckKafka}
				if n%2 == 1 {
					m.Ack = tidewire.AckReplicated
				}
				p, err := c.PublishAsync("/"+chat+"/"+key, m)
				if err != nil {
					tell(event{Event: "refused", Key: key, Error: err.Error()})
					return
				}
				if under = append(under, p); len(under) >= 5 {
					ack()
				}
			}
			for len(under) > 0 && ctx.Err() == nil {
				ack()
			}
		})
	}
	for range cuts {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // so that cuts meet every moment of a delivery
		sockets.cut()
		wait("the resume of "+topic, resumed[0])
		wait("the resume of "+chat, resumed[1])
	}
	ended()
	publishers.Wait()
	stop()
	produced := len(kafkatest.ReadCommitted(t, kafka.Brokers(), topic))
	for {
		mu.Lock()
		records, chats, acked := j.topic(topic), j.topic(chat), j.allAcked()
		mu.Unlock()
		if records >= produced && chats >= acked {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d of %d records, %d of %d publishes", records, produced, chats, acked)
		}
	}
	cancel()
	readers.Wait()
	j.verdict(t, kafka.Brokers(), topic, partitions, cuts)
}

// cuttable makes connections, and breaks the newest.
type cuttable struct {
	mu   sync.Mutex
	conn net.Conn
}

func (s *cuttable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		s.mu.Lock()
		s.conn = conn
		s.mu.Unlock()
	}
	return conn, err
}

func (s *cuttable) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.(*net.TCPConn).SetLinger(0)
	_ = s.conn.Close()
}
