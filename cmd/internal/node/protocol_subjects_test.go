package node

import (
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// Keys are bytes; in a subject they are written in one way only, and every way back gives the same key.
func protocolKeys(t *testing.T, c *aCluster, topic string) {
	root := "/" + topic
	cases := []struct {
		key     []byte
		subject string
	}{
		{nil, ""}, {[]byte{}, "/"}, {[]byte("a"), "/a"}, {[]byte("a/b"), "/a/b"}, {[]byte("/"), "//"}, {[]byte("a//"), "/a//"},
		{[]byte("100%"), "/100%25"}, {[]byte("%41"), "/%2541"}, {[]byte("*"), "/%2A"}, {[]byte("a/*"), "/a/%2A"},
		{[]byte("*/a"), "/%2A/a"}, {[]byte("a/*/b"), "/a/%2A/b"}, {[]byte("a*"), "/a*"}, {[]byte("**"), "/**"},
		{[]byte{0}, "/%00"}, {[]byte("\n\x1f\x7f"), "/%0A%1F%7F"}, {[]byte{0xff, 0xfe}, "/%FF%FE"}, {[]byte("é\xc3"), "/é%C3"},
		{[]byte("日本/語"), "/日本/語"}, {[]byte("\ufffd"), "/\ufffd"}, {[]byte(" a b "), "/ a b "}, {[]byte(`"\`), `/"\`},
		{[]byte("\xed\xa0\x80"), "/%ED%A0%80"}, {[]byte("<&>\u2028"), "/<&>\u2028"}, {[]byte("😀"), "/😀"}, {[]byte("?q#f"), "/?q#f"},
	}
	p := kafkatest.NewProducer(t, c.kafka.brokers)
	all := dial(t, c.addr(0))
	all.sub(root+"/*", "")
	all.want("live")
	for i, tc := range cases {
		key := dial(t, c.addr(0))
		key.sub(root+tc.subject, "")
		key.want("live")
		p.Produce(&kafkatest.Record{Topic: topic, Key: tc.key, Value: []byte{byte('0' + i%10)}})
		m := all.want("msg")
		if m.Subject != root+tc.subject {
			t.Errorf("key %q: subject %q, want %q", tc.key, m.Subject, root+tc.subject)
		}
		m = key.want("msg")
		if m.Subject != root+tc.subject {
			t.Errorf("key %q at its own subscriber: subject %q", tc.key, m.Subject)
		}
		// The way back: a publish to the subject is a record with that key.
		if f := key.ask(`"op":"pub","subject":%s,"text":"back"`, quoted(root+tc.subject)); f.Op != "acked" {
			t.Errorf("pub to %q: %+v", root+tc.subject, f)
		}
		if m = all.want("msg"); m.Subject != root+tc.subject || m.value() != "back" {
			t.Errorf("published to %q, came as %q", root+tc.subject, m.Subject)
		}
		_ = key.c.CloseNow()
	}
	for i, r := range kafkatest.ReadCommitted(t, c.kafka.brokers, topic) {
		found := false
		for _, tc := range cases {
			found = found || (string(tc.key) == string(r.Key) && (tc.key == nil) == (r.Key == nil))
		}
		if !found {
			t.Errorf("record %d has key %q (null: %v)", i, r.Key, r.Key == nil)
		}
	}
}

func protocolSubjectsRefused(t *testing.T, c *aCluster, topic string) {
	root := "/" + topic
	for _, subject := range []string{
		"", "/", "//", "//a", topic, topic + "/a", "/*", "*", "/*/a", root + "/*/b", root + "/*/*", root + "/%", root + "/%2", root + "/%zz",
		root + "/%41", root + "/%2a", root + "/%C3%A9", root + "/%2F", root + "/a%2Ab", root + "/\x01", root + "/a\nb", root + "/\x7f",
		"/no-such-topic", "/no-such-topic/*", "/__consumer_offsets/*", " " + root, "/" + topic + "%20/a",
	} {
		k := dial(t, c.addr(0))
		k.refused("bad_subject", `"op":"sub","subject":%s`, quoted(subject))
		k.refused("bad_subject", `"op":"pub","subject":%s,"data":1`, quoted(subject))
	}
	k := dial(t, c.addr(0))
	k.refused("bad_subject", `"op":"pub","subject":%s,"data":1`, quoted(root+"/a/*"))
	// A lone surrogate is no character: it must not become another key.
	f := k.ask(`"op":"sub","subject":"%s/\ud800"`, root)
	if f.Op != "error" {
		t.Errorf("a subject with a lone surrogate: %+v", f)
	}
}

func protocolPatternsAndUnsub(t *testing.T, c *aCluster, topic string) {
	root := "/" + topic
	p := kafkatest.NewProducer(t, c.kafka.brokers)
	k := dial(t, c.addr(0))
	k.sub(root+"/a/*", "")
	k.want("live")
	k.sub(root+"/b", "")
	k.want("live")
	k.refused("already_subscribed", `"op":"sub","subject":%s`, quoted(root+"/b"))
	k.refused("already_subscribed", `"op":"sub","subject":%s,"history":5`, quoted(root+"/a/*"))
	k.refused("not_subscribed", `"op":"unsub","subject":%s`, quoted(root+"/a"))
	k.refused("not_subscribed", `"op":"unsub","subject":%s`, quoted(root+"/*"))
	for _, key := range []string{"a", "ab", "a/", "a/1", "a/b/c", "b/", "b", "x"} {
		p.Produce(&kafkatest.Record{Topic: topic, Key: []byte(key), Value: []byte("1")})
	}
	p.Produce(&kafkatest.Record{Topic: topic, Value: []byte("1")})
	got := map[string]int{}
	for range 4 {
		got[k.want("msg").Subject]++
	}
	for _, want := range []string{"/a/", "/a/1", "/a/b/c", "/b"} {
		if got[root+want] != 1 {
			t.Errorf("%s came %d times: %v", want, got[root+want], got)
		}
	}
	k.raw(`{"op":"unsub","id":77,"subject":` + quoted(root+"/a/*") + `}`)
	if f := k.want("unsubbed"); f.ID != 77 || f.Subject != root+"/a/*" || f.Reason != "asked" {
		t.Errorf("unsubbed: %+v", f)
	}
	k.refused("not_subscribed", `"op":"unsub","subject":%s`, quoted(root+"/a/*"))
	other := dial(t, c.addr(0))
	other.sub(root+"/a/1", "")
	other.want("live")
	p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("a/1"), Value: []byte("gone"), Timestamp: time.Now().Add(time.Second)})
	other.want("msg") // the partitions are taken in one apart from the other
	p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("b"), Value: []byte("still")})
	if m := k.want("msg"); m.Subject != root+"/b" || m.value() != "still" {
		t.Errorf("after unsub: %+v", m)
	}
	k.sub(root+"/a/*", `,"history":1`)
	if m := k.backlog(root + "/a/*"); values(m) != "gone" {
		t.Errorf("subscribed again: %s", values(m))
	}
}
