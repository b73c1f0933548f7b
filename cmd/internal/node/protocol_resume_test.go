package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// Every verdict of a resume, and that the client may adopt at whole and goes on from it.
func protocolResume(t *testing.T, c *aCluster, topic string) {
	written := fill(t, c, topic, "k", 5)
	p, head := written[4].Pos[0], written[4]
	at := func(epoch, seqno uint64) string { return fmt.Sprintf("[[%d,%d,%d]]", p, epoch, seqno) }
	root, other := "/"+topic, 1-p
	for _, tc := range []struct {
		name, subject, more string
		recovered           bool
		gap                 string
		want                string
	}{
		{"from the middle", "/k", vectorOf(written[1]), true, "", "v2 v3 v4"},
		{"from the head", "/k", vectorOf(head), true, "", ""},
		{"wins over history", "/k", vectorOf(written[3]) + `,"history":-1`, true, "", "v4"},
		{"a pattern", "/*", fmt.Sprintf("[[%d,%d,%d],[%d,1,0]]", p, written[2].Pos[1], written[2].Pos[2], other), true, "*", "v3 v4"},
		{"a partition left out comes from its first cached record", "/*", fmt.Sprintf("[[%d,%d,0]]", other, head.Pos[1]), true, "*", "v0 v1 v2 v3 v4"},
		{"nothing in it: from the first cached record", "/k", "[]", true, "*", "v0 v1 v2 v3 v4"},
		{"beyond the head", "/k", at(head.Pos[1], head.Pos[2]+1), false, "unknown_epoch", ""},
		{"far beyond the head", "/k", at(head.Pos[1], 1<<53), false, "unknown_epoch", ""},
		{"at the end of numbers", "/k", at(head.Pos[1], 1<<63-1), false, "unknown_epoch", ""},
		{"an epoch that never was", "/k", at(head.Pos[1]+1000, 0), false, "unknown_epoch", ""},
		{"an epoch far away", "/k", at(1<<62, 1), false, "unknown_epoch", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := dial(t, c.addr(0))
			f := k.sub(root+tc.subject, `,"resume":`+tc.more)
			if f.Recovered == nil {
				t.Fatalf("no verdict: %+v", f)
			}
			if tc.gap != "*" && (*f.Recovered != tc.recovered || f.Gap != tc.gap) {
				t.Errorf("recovered %v, gap %q; want %v, %q", *f.Recovered, f.Gap, tc.recovered, tc.gap)
			}
			msgs := k.backlog(root + tc.subject)
			if tc.recovered && values(msgs) != tc.want {
				t.Errorf("delivered %q, want %q", values(msgs), tc.want)
			}
			// The vector that the client has now is one to go on from.
			vector := map[uint64][]uint64{}
			for _, a := range f.At {
				vector[a[0]] = a
			}
			for _, m := range msgs {
				if !after(m.Pos, vector[m.Pos[0]]) {
					t.Errorf("%v after %v", m.Pos, vector[m.Pos[0]])
				}
				vector[m.Pos[0]] = m.Pos
			}
			var list []string
			for _, a := range vector {
				list = append(list, fmt.Sprintf("[%d,%d,%d]", a[0], a[1], a[2]))
			}
			k2 := dial(t, c.addr(0))
			f = k2.sub(root+tc.subject, `,"resume":[`+strings.Join(list, ",")+`]`)
			if f.Recovered == nil || !*f.Recovered {
				t.Errorf("the adopted vector %v: %+v", list, f)
			}
			if again := k2.backlog(root + tc.subject); len(again) > 0 {
				t.Errorf("the adopted vector %v brings %s again", list, values(again))
			}
		})
	}
}

// A vector that is nonsense is a bad_request, and the session goes on.
func protocolResumeNonsense(t *testing.T, c *aCluster, topic string) {
	fill(t, c, topic, "k", 1)
	many := strings.Repeat("[0,1,1],", 100_000)
	var different strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&different, "[%d,1,1],", i)
	}
	for _, vector := range []string{
		`"x"`, `{}`, `7`, `true`, `[7]`, `[1,2,3]`, `["x"]`, `[[]]`, `[[0]]`, `[[0,1]]`, `[[0,1,1,1]]`, `[[-1,1,1]]`, `[[0,-1,1]]`, `[[0,1,-1]]`,
		`[[0.5,1,1]]`, `[[0,1,1.5]]`, `[["0",1,1]]`, `[[0,1,"1"]]`, `[[0,1,null]]`, `[null]`, `[{}]`, `[[0,1,1],[0,1,1]]`, `[[0,1,1],[0,2,1]]`,
		`[[2,1,1]]`, `[[99,1,1]]`, `[[4294967296,1,1]]`, `[[18446744073709551616,1,1]]`, `[[0,1,99999999999999999999999]]`, `[[0,1,1],[2,1,1]]`,
		`[[[0,1,1]]]`, `[` + strings.TrimSuffix(many, ",") + `]`, `[` + strings.TrimSuffix(different.String(), ",") + `]`,
	} {
		k := dial(t, c.addr(0))
		f := k.ask(`"op":"sub","subject":%s,"resume":%s`, quoted("/"+topic+"/*"), vector)
		if f.Op != "error" || f.Code != "bad_request" || f.Message == "" || len(f.Message) > 1000 {
			t.Errorf("%.50s: answered %+v", vector, f)
		}
		k.sub("/"+topic+"/*", "")
	}
	// Well formed, but for a partition where murmur2 puts no such key: not refused.
	for p := range 2 {
		k := dial(t, c.addr(0))
		if f := k.ask(`"op":"sub","subject":%s,"resume":[[%d,1,1]]`, quoted("/"+topic+"/k"), p); f.Op != "subbed" || f.Recovered == nil {
			t.Errorf("partition %d: %+v", p, f)
		}
	}
}

// TestProtocolOfThreeNodes holds three nodes to what is said of several.
func TestProtocolOfThreeNodes(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	limited, topic := "limited", k.topic(t, 2, nil)
	k.create(t, limited, 1, map[string]string{"max.message.bytes": "5000"})
	c := startCluster(t, k, 3, limited+","+topic, openForPublishing(t, limited))
	t.Run("TooLarge", func(t *testing.T) { protocolTooLarge(t, c, limited) })
	t.Run("Resume", func(t *testing.T) { protocolResumeOnAnotherNode(t, c, topic) })
}

// A position that one node gave out means the same record on every other, and a subscriber goes on
// there without a hole; the bytes of a record are the same on all nodes but for what each knows of prev.
func protocolResumeOnAnotherNode(t *testing.T, c *aCluster, topic string) {
	written := fill(t, c, topic, "k", 6)
	for i := range 3 {
		for from, m := range written {
			conn := dial(t, c.addr(i))
			f := conn.sub("/"+topic+"/k", `,"resume":`+vectorOf(m))
			if f.Recovered == nil || !*f.Recovered || fmt.Sprint(f.At) != fmt.Sprint([][]uint64{m.Pos}) {
				t.Fatalf("node %d from %v: %+v", i, m.Pos, f)
			}
			msgs := conn.backlog("/" + topic + "/k")
			if values(msgs) != values(written[from+1:]) {
				// The rest is on its way to that node.
				for len(msgs) < len(written)-from-1 {
					msgs = append(msgs, conn.want("msg"))
				}
			}
			if values(msgs) != values(written[from+1:]) {
				t.Errorf("node %d from %v: %s", i, m.Pos, values(msgs))
			}
			_ = conn.c.CloseNow()
		}
	}
}
