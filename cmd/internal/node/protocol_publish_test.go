package node

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func lastRecord(t *testing.T, c *aCluster, topic string) kafkatest.Record {
	t.Helper()
	all := kafkatest.ReadCommitted(t, c.kafka.brokers, topic)
	if len(all) == 0 {
		t.Fatal("nothing was written")
	}
	return all[len(all)-1]
}

// What is published is in Kafka as it was given, and what the answer says of it is true.
func protocolPub(t *testing.T, c *aCluster, topic string) {
	root := "/" + topic
	sub := dial(t, c.addr(0))
	sub.sub(root+"/*", "")
	sub.want("live")
	k := dial(t, c.addr(0))
	var offset int64
	for _, tc := range []struct{ fields, value string }{
		{`"data":{"a": [1,  2]}`, `{"a": [1,  2]}`}, {`"data":null`, `null`}, {`"data":"s"`, `"s"`}, {`"data":1e999`, `1e999`}, {`"data":[1,2 ]`, `[1,2 ]`},
		{`"text":"x\u0000\n\u00e9"`, "x\x00\né"}, {`"text":""`, ""}, {`"b64":"/w=="`, "\xff"}, {`"b64":""`, ""}, {``, "<null>"},
	} {
		for _, ack := range []string{"", `,"ack":"kafka"`, `,"ack":"replicated"`} {
			f := k.ask(`"op":"pub","subject":"%s/k","headers":{"h":"v","é":""}%s%s`, root, ack, map[bool]string{true: ",", false: ""}[tc.fields != ""]+tc.fields)
			if f.Op != "acked" || f.Offset != offset || f.Partition != 0 || f.Duplicate {
				t.Fatalf("%s%s: answered %+v", tc.fields, ack, f)
			}
			if strings.Contains(ack, "replicated") && len(f.Pos) != 3 {
				t.Errorf("%s%s: no position: %+v", tc.fields, ack, f)
			}
			m := sub.want("msg")
			if len(f.Pos) > 0 && fmt.Sprint(m.Pos) != fmt.Sprint(f.Pos) {
				t.Errorf("%s: acked at %v, came at %v", tc.fields, f.Pos, m.Pos)
			}
			r := lastRecord(t, c, topic)
			if value := string(r.Value); (r.Value == nil) != (tc.value == "<null>") || r.Value != nil && value != tc.value || string(r.Key) != "k" {
				t.Errorf("%s: in Kafka %q (null: %v)", tc.fields, value, r.Value == nil)
			}
			if len(r.Headers) != 2 || r.Headers[0].Key != "h" || string(r.Headers[0].Value) != "v" || r.Headers[1].Key != "é" {
				t.Errorf("%s: headers in Kafka %v", tc.fields, r.Headers)
			}
			offset++
		}
	}
}

func protocolPubRefused(t *testing.T, c *aCluster, topic string) {
	for _, fields := range []string{
		`"data":1,"text":"x"`, `"text":"x","b64":""`, `"data":1,"b64":""`, `"text":7`, `"text":null,"data":1`, `"b64":7`, `"b64":"%"`, `"b64":"_w"`,
		`"data":1,"headers":[]`, `"data":1,"headers":{"a":1}`, `"data":1,"headers":{"a":null}`, `"data":1,"headers":"x"`,
		`"data":1,"mid":7`, `"data":1,"mid":"` + strings.Repeat("m", 129) + `"`, `"data":1,"mid":"` + strings.Repeat("é", 65) + `"`,
		`"data":1,"ack":"all"`, `"data":1,"ack":7`, `"data":1,"ack":true`,
	} {
		k := dial(t, c.addr(0))
		k.refused("bad_request", `"op":"pub","subject":"/%s/k",%s`, topic, fields)
	}
	if n := len(kafkatest.ReadCommitted(t, c.kafka.brokers, topic)); n != 0 {
		t.Errorf("%d refused records were written", n)
	}
	if f := dial(t, c.addr(0)).ask(`"op":"pub","subject":"/%s/k","data":1,"mid":"%s"`, topic, strings.Repeat("é", 64)); f.Op != "acked" {
		t.Errorf("a mid of 128 bytes: %+v", f)
	}
}

// The same mid to the same partition is the same message, from whichever connection and node.
func protocolMid(t *testing.T, c *aCluster, topic string) {
	sub := dial(t, c.addr(0))
	sub.sub("/"+topic+"/*", "")
	sub.want("live")
	var first *frame
	for i, ack := range []string{"kafka", "kafka", "replicated"} {
		k := dial(t, c.addr(0))
		f := k.ask(`"op":"pub","subject":"/%s/k","data":%d,"mid":"one","ack":"%s"`, topic, i, ack)
		if i == 0 {
			first = f
		}
		if f.Op != "acked" || f.Duplicate != (i > 0) || f.Offset != first.Offset || (ack == "replicated" && len(f.Pos) != 3) {
			t.Errorf("time %d: %+v", i, f)
		}
	}
	k := dial(t, c.addr(0))
	if f := k.ask(`"op":"pub","subject":"/%s/k","data":9,"mid":"two"`, topic); f.Duplicate || f.Offset != first.Offset+1 {
		t.Errorf("another mid: %+v", f)
	}
	if got := sub.want("msg").value() + sub.want("msg").value(); got != "09" {
		t.Errorf("subscribers got %s", got)
	}
}

// A value over the limit of its topic is too_large, and the limit is in the message.
func protocolTooLarge(t *testing.T, c *aCluster, topic string) {
	for i := range 3 { // one is the coordinator's node, two forward
		conn := dial(t, c.addr(i))
		refused := func() *frame {
			return conn.refused("too_large", `"op":"pub","subject":"/%s/k","text":"%s"`, topic, strings.Repeat("x", 6000))
		}
		var f *frame
		eventually(t, "the limit to be known", func() bool { // Kafka may take longer to tell it than a client is kept waiting
			f = refused()
			return !strings.Contains(f.Message, "the limit cannot be had")
		})
		if !strings.Contains(f.Message, "5000") || f.RetryMS != 0 {
			t.Errorf("node %d: the limit is not in %q (retry_ms %d)", i, f.Message, f.RetryMS)
		}
		if f := conn.ask(`"op":"pub","subject":"/%s/k","text":"%s"`, topic, strings.Repeat("x", 4000)); f.Op != "acked" {
			t.Errorf("node %d: a smaller one: %+v", i, f)
		}
	}
}

// With Kafka silent a publish is unavailable with retry_ms in bounded time, and may be sent again.
func TestProtocolUnavailable(t *testing.T) {
	t.Parallel()
	fake := kafkatest.Fake(t)
	k := &aKafka{brokers: fake.Brokers()}
	topic := k.topic(t, 1, nil)
	c := startCluster(t, k, 1, topic, openForPublishing(t, topic))
	conn := dial(t, c.addr(0))
	conn.sub("/"+topic+"/*", "")
	conn.want("live")
	release := make(chan struct{})
	fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-release:
			return nil, nil, false
		default:
			fake.KeepControl()
			return nil, fmt.Errorf("the connection breaks"), true
		}
	})
	start := time.Now()
	f := conn.refused("unavailable", `"op":"pub","subject":"/%s/k","data":1,"mid":"m"`, topic)
	if f.RetryMS <= 0 || time.Since(start) > waitTime/2 {
		t.Errorf("after %v: %+v", time.Since(start), f)
	}
	close(release)
	eventually(t, "the publish to go through", func() bool {
		return conn.ask(`"op":"pub","subject":"/%s/k","data":1,"mid":"m"`, topic).Op == "acked"
	})
	if n := len(kafkatest.ReadCommitted(t, c.kafka.brokers, topic)); n != 1 {
		t.Errorf("%d records in Kafka, want 1", n)
	}
}

// b64 of any bytes comes back the same.
func protocolBytesRoundTrip(t *testing.T, c *aCluster, topic string) {
	k := dial(t, c.addr(0))
	k.sub("/"+topic, "")
	k.want("live")
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	k.raw(`{"op":"pub","id":1,"subject":"/` + topic + `","b64":"` + base64.StdEncoding.EncodeToString(all) + `"}`)
	for {
		f := k.next()
		if f.Op == "msg" {
			if string(f.B64) != string(all) {
				b, _ := json.Marshal(f)
				t.Errorf("came back as %s", b)
			}
			return
		}
	}
}
