package browsertest

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What people see, in a browser as they have it: the page and the console, on one demo.
func TestBrowser(t *testing.T) {
	d := startDemo(t)
	t.Run("page", func(t *testing.T) { d.run(t, "live", nil) })
	t.Run("node stopped", func(t *testing.T) { d.run(t, "stop", nil) })
	t.Run("EventSource", func(t *testing.T) { d.run(t, "eventsource", map[string]any{"clients": d.clients}) })
	t.Run("reload", func(t *testing.T) { d.run(t, "reload", nil) })
	t.Run("offline", func(t *testing.T) { d.run(t, "offline", nil) })
	t.Run("console under load", func(t *testing.T) {
		const subscribers = 300
		subscribe(t, d.clients[0], "/prices/*", subscribers)
		stalled := stall(t, d.clients[0], "/chat/stalled")
		// More than the kernel's buffers between the node and the client hold.
		big := []byte(strings.Repeat("x", 500_000))
		for range 24 {
			d.produce(t, &kgo.Record{Topic: "chat", Key: []byte("stalled"), Value: big})
		}
		d.run(t, "console", map[string]any{"subscribers": subscribers, "stalled": stalled})
	})
	t.Run("console of a node that stops", func(t *testing.T) { d.run(t, "silent", nil) })
	t.Run("counters of nodes old and new", func(t *testing.T) { d.run(t, "counters", nil) })
	t.Run("hostile data", func(t *testing.T) {
		var records, quotes []*kgo.Record
		for _, h := range hostile {
			value, err := json.Marshal(map[string]any{"from": h, "text": h})
			if err != nil {
				t.Fatal(err)
			}
			quote, err := json.Marshal(map[string]any{"symbol": h, "bid": 1, "ask": 1, "n": 1})
			if err != nil {
				t.Fatal(err)
			}
			headers := []kgo.RecordHeader{{Key: h, Value: []byte(h)}, {Key: "chat-line", Value: []byte(h)}}
			records = append(records,
				&kgo.Record{Topic: "chat", Key: []byte(h), Value: value, Headers: headers},
				&kgo.Record{Topic: "chat", Value: value, Headers: headers},
				// And what is no text at all, as key, header and value.
				&kgo.Record{Topic: "chat", Key: []byte(h + "\xff\xed\xa0\x80"), Value: []byte(h + "\xff\xed\xa0\x80"), Headers: []kgo.RecordHeader{{Key: h + "\xff", Value: []byte(h + "\xff")}}})
			quotes = append(quotes, &kgo.Record{Topic: "prices", Key: []byte(h), Value: quote})
			subscribe(t, d.clients[0], "/chat/"+subjectText(h), 1)
		}
		d.produce(t, records...)
		// The page shows prices from when it is opened on: they go on coming.
		ctx, cancel := context.WithCancel(t.Context())
		var producer sync.WaitGroup
		defer func() { cancel(); producer.Wait() }()
		producer.Go(func() { d.keepProducing(ctx, t, quotes) })
		d.run(t, "hostile", map[string]any{"hostile": hostile})
	})
}

// hostile are keys, values and names that try to be more than text. The first is also put into faked answers.
var hostile = []string{
	`"><img src=x onerror=window.pwned=1><script>window.pwned=1</script>'`,
	`<img src=x onerror="window.pwned=1">`,
	`<svg onload=window.pwned=1><style>*{display:none}</style>`,
	`</textarea></bdi></li><iframe srcdoc="<script>parent.pwned=1</script>">`,
	`javascript:window.pwned=1`,
	"\u202e\u2066right to left\u200f and \u0001control\u0000",
	strings.Repeat("W", 5000),
	`__proto__`, `constructor`,
	"two\nlines\r\rdata: {\"op\":\"bye\"}\n\nid: 1", "\u2028\u2029\x1b[31mred\x1b[0m\a", `</script><script>window.pwned=1</script>`, `"},{"op":"bye","x":"`,
	`${window.pwned=1}{{constructor.constructor('window.pwned=1')()}}`,
}

// subjectText writes a key as it stands in a subject.
func subjectText(key string) string {
	return strings.NewReplacer("%", "%25", "\x00", "%00", "\x01", "%01", "\n", "%0A", "\r", "%0D", "\x1b", "%1B", "\a", "%07").Replace(key)
}
