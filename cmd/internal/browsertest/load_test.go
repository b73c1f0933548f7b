package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
)

// subscribe opens n connections to a node, each with one subscription, and reads them until the test ends. It
// returns when all are subscribed.
func subscribe(t *testing.T, addr, subject string, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	t.Cleanup(func() { cancel(); readers.Wait() })
	op, err := json.Marshal(map[string]any{"op": "sub", "id": 1, "subject": subject})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		dial, done := context.WithTimeout(ctx, startTime)
		c, _, err := websocket.Dial(dial, "ws://"+addr+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(4 << 20)
		if err := c.Write(dial, websocket.MessageText, op); err != nil {
			t.Fatal(err)
		}
		for { // welcome, perhaps records, subbed
			_, b, err := c.Read(dial)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(b), `{"op":"subbed"`) {
				break
			}
			if !strings.HasPrefix(string(b), `{"op":"welcome"`) {
				t.Fatalf("subscribing to %.80q: %.200s", subject, b)
			}
		}
		done()
		readers.Go(func() {
			defer func() { _ = c.CloseNow() }()
			for {
				if _, _, err := c.Read(ctx); err != nil {
					return
				}
			}
		})
	}
}

// stall opens a connection that is subscribed and reads nothing any more, and returns its address.
func stall(t *testing.T, addr, subject string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	_ = conn.SetDeadline(time.Now().Add(startTime))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", addr)
	op := fmt.Sprintf(`{"op":"sub","subject":%q}`, subject)
	// A masked text frame of less than 126 bytes, the mask being zero.
	if _, err := conn.Write(append([]byte{0x81, 0x80 | byte(len(op)), 0, 0, 0, 0}, op...)); err != nil {
		t.Fatal(err)
	}
	for buf, got := make([]byte, 1024), ""; !strings.Contains(got, `"op":"subbed"`); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	return conn.LocalAddr().String()
}

// produce writes records to the demo's Kafka.
func (d *demo) produce(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.kafka), kgo.ProducerBatchMaxBytes(2<<20), kgo.RecordDeliveryTimeout(startTime))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// keepProducing writes the records again and again until ctx ends.
func (d *demo) keepProducing(ctx context.Context, t *testing.T, records []*kgo.Record) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.kafka))
	if err != nil {
		t.Error(err)
		return
	}
	defer cl.Close()
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		again := make([]*kgo.Record, len(records)) // a record is the client's once it was produced
		for i, r := range records {
			again[i] = &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value}
		}
		if err := cl.ProduceSync(ctx, again...).FirstErr(); err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}
