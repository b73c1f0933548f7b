package kafkaio

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/tidewire/tidewire/bridge"
)

// Fetch, versions 11 to 13; all brokers since Kafka 2.3 have the oldest, those since 3.1 the newest, 4.x
// included. From 12 on (Kafka 2.7) a request is encoded flexibly and says the leader epoch of the last
// batch that was read: a broker whose log is not the one that was read says where they part instead of
// answering with other records. From 13 on topics are named by id, so that one that was deleted and
// created again is not taken for its predecessor. No fetch sessions: with a few hundred partitions a
// request is a few kilobytes, and a session would be one more state to lose.
const (
	fetchMin      = 11
	fetchFlexible = 12
	fetchByID     = 13
)

const (
	// fetchMaxBytes bounds the records of one answer, fetchPartitionBytes those of one partition in
	// it. Brokers exceed either when a single batch is larger.
	fetchMaxBytes       = 8 << 20
	fetchPartitionBytes = 1 << 20
	// replicaConsumer, noSession: fixed values of an ordinary reader.
	replicaConsumer = -1
	noSession       = -1
	readCommitted   = 1
)

// fetchAsk is one partition of a fetch request.
type fetchAsk struct {
	tp       bridge.TopicPartition
	topic    bridge.TopicID // zero: whichever topic has the name
	epoch    int32          // the leader epoch we know; -1 unknown
	offset   bridge.Offset
	last     bridge.LeaderEpoch // of the last batch before offset
	maxBytes int32
}

// fetchGot is one partition of the answer. raw points into the answer's buffer.
type fetchGot struct {
	tp       bridge.TopicPartition
	code     int16
	stable   bridge.Offset // last stable offset
	logStart bridge.Offset
	aborted  []abortedTxn
	raw      []byte
	epochs   bool // the broker tells of truncations, see above
	// diverged: the log is not the one that was read. The highest epoch up to fetchAsk.last that it
	// knows is leader, which ends at leaderEnd.
	diverged  bool
	leader    bridge.LeaderEpoch
	leaderEnd bridge.Offset
}

// fetch asks for asks and waits up to maxWait for a first record.
func (w *wire) fetch(ctx context.Context, maxWait time.Duration, maxBytes int32, asks []fetchAsk) ([]fetchGot, error) {
	if w.fetches == 0 {
		v, err := w.version(ctx, protocol.Fetch, fetchMin, fetchByID)
		if err != nil {
			return nil, err
		}
		w.fetches = v
	}
	version := min(w.fetches, fetchVersion(asks))
	body, err := w.do(ctx, apiFetch, version, version >= fetchFlexible, maxWait, func(e *wireWriter) {
		encodeFetch(e, version, maxWait, maxBytes, asks)
	})
	if err != nil {
		return nil, err
	}
	return decodeFetch(body, version, asks)
}

// fetchVersion is the newest version in which asks can be put.
func fetchVersion(asks []fetchAsk) int16 {
	for i := range asks {
		if asks[i].topic.IsZero() {
			return fetchByID - 1
		}
	}
	return fetchByID
}

func encodeFetch(w *wireWriter, version int16, maxWait time.Duration, maxBytes int32, asks []fetchAsk) {
	e := versionedWriter{w, version >= fetchFlexible}
	e.i32(replicaConsumer)
	e.i32(int32(maxWait / time.Millisecond))
	e.i32(1) // min bytes
	e.i32(maxBytes)
	e.i8(readCommitted)
	e.i32(0) // session id
	e.i32(noSession)
	// The order of asks is the order in which the broker fills its answer. A topic may therefore
	// come up more than once; neighbours share an entry.
	same := func(i, j int) bool { return asks[i].tp.Topic == asks[j].tp.Topic && asks[i].topic == asks[j].topic }
	topics := 0
	for i := range asks {
		if i == 0 || !same(i, i-1) {
			topics++
		}
	}
	e.array(topics)
	for i := 0; i < len(asks); {
		j := i + 1
		for j < len(asks) && same(j, i) {
			j++
		}
		if version >= fetchByID {
			e.b = append(e.b, asks[i].topic[:]...)
		} else {
			e.string(asks[i].tp.Topic)
		}
		e.array(j - i)
		for ; i < j; i++ {
			e.i32(asks[i].tp.Partition)
			e.i32(asks[i].epoch)
			e.i64(int64(asks[i].offset))
			if e.flexible {
				e.i32(int32(asks[i].last))
			}
			e.i64(-1) // log start: followers only
			e.i32(asks[i].maxBytes)
			e.end()
		}
		e.end()
	}
	e.array(0)   // forgotten topics
	e.string("") // rack
	e.end()
}

// tagDiverging is the tagged field of an answer's partition that says where the logs part.
const tagDiverging = 0

func decodeFetch(body []byte, version int16, asks []fetchAsk) ([]fetchGot, error) {
	d := versionedReader{wireReader: wireReader{b: body}, flexible: version >= fetchFlexible}
	d.i32() // throttle
	code := d.i16()
	d.i32() // session id
	if d.err == nil && code != 0 {
		return nil, kafkaError(code)
	}
	var got []fetchGot
	for t := d.array(6); t > 0 && d.err == nil; t-- {
		topic := ""
		if version >= fetchByID {
			topic = topicOf(asks, d.take(16))
		} else {
			topic = d.string()
		}
		for p := d.array(42); p > 0 && d.err == nil; p-- {
			g := fetchGot{epochs: version >= fetchFlexible}
			g.tp = bridge.TopicPartition{Topic: topic, Partition: d.i32()}
			g.code = d.i16()
			d.i64() // high watermark
			g.stable = bridge.Offset(d.i64())
			g.logStart = bridge.Offset(d.i64())
			if n := d.array(16); n > 0 {
				g.aborted = make([]abortedTxn, n)
				for i := range g.aborted {
					g.aborted[i] = abortedTxn{producer: d.i64(), first: bridge.Offset(d.i64())}
					d.end()
				}
			}
			d.i32() // preferred replica: without a rack of ours there is none
			g.raw = d.blob()
			d.tagged(func(tag uint64, f *wireReader) {
				if tag == tagDiverging {
					g.diverged, g.leader, g.leaderEnd = true, bridge.LeaderEpoch(f.i32()), bridge.Offset(f.i64())
				}
			})
			if d.err == nil {
				got = append(got, g)
			}
		}
		d.end()
	}
	d.end()
	return got, d.err
}

// topicOf is the name under which a topic was asked for; "" for one that was not.
func topicOf(asks []fetchAsk, id []byte) string {
	for i := range asks {
		if string(asks[i].topic[:]) == string(id) {
			return asks[i].tp.Topic
		}
	}
	return ""
}
