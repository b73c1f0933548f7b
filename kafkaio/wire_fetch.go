package kafkaio

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// Fetch, version 11 (Kafka 2.3 and later, 4.x included): the last one that names topics by name, so
// that a partition is asked for by what we call it. Topics that were deleted and created again are
// noticed by their ids in Metadata. No fetch sessions: with a few hundred partitions a request is a few
// kilobytes, and a session would be one more state to lose.
const fetchVersion = 11

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
	epoch    int32 // the leader epoch we know; -1 unknown
	offset   bridge.Offset
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
}

// fetch asks for asks and waits up to maxWait for a first record.
func (w *wire) fetch(ctx context.Context, maxWait time.Duration, maxBytes int32, asks []fetchAsk) ([]fetchGot, error) {
	body, err := w.do(ctx, apiFetch, fetchVersion, false, maxWait, func(e *wireWriter) {
		encodeFetch(e, maxWait, maxBytes, asks)
	})
	if err != nil {
		return nil, err
	}
	return decodeFetch(body)
}

func encodeFetch(e *wireWriter, maxWait time.Duration, maxBytes int32, asks []fetchAsk) {
	e.i32(replicaConsumer)
	e.i32(int32(maxWait / time.Millisecond))
	e.i32(1) // min bytes
	e.i32(maxBytes)
	e.i8(readCommitted)
	e.i32(0) // session id
	e.i32(noSession)
	// The order of asks is the order in which the broker fills its answer. A topic may therefore
	// come up more than once; neighbours share an entry.
	topics := 0
	for i := range asks {
		if i == 0 || asks[i].tp.Topic != asks[i-1].tp.Topic {
			topics++
		}
	}
	e.i32(int32(topics))
	for i := 0; i < len(asks); {
		j := i + 1
		for j < len(asks) && asks[j].tp.Topic == asks[i].tp.Topic {
			j++
		}
		e.str(asks[i].tp.Topic)
		e.i32(int32(j - i))
		for ; i < j; i++ {
			e.i32(asks[i].tp.Partition)
			e.i32(asks[i].epoch)
			e.i64(int64(asks[i].offset))
			e.i64(-1) // log start: followers only
			e.i32(asks[i].maxBytes)
		}
	}
	e.i32(0)  // forgotten topics
	e.str("") // rack
}

func decodeFetch(body []byte) ([]fetchGot, error) {
	d := wireReader{b: body}
	d.i32() // throttle
	code := d.i16()
	d.i32() // session id
	if d.err == nil && code != 0 {
		return nil, kafkaError(code)
	}
	var got []fetchGot
	for t := d.count(6); t > 0 && d.err == nil; t-- {
		topic := d.str()
		for p := d.count(42); p > 0 && d.err == nil; p-- {
			var g fetchGot
			g.tp = bridge.TopicPartition{Topic: topic, Partition: d.i32()}
			g.code = d.i16()
			d.i64() // high watermark
			g.stable = bridge.Offset(d.i64())
			g.logStart = bridge.Offset(d.i64())
			if n := d.count(16); n > 0 {
				g.aborted = make([]abortedTxn, n)
				for i := range g.aborted {
					g.aborted[i] = abortedTxn{producer: d.i64(), first: bridge.Offset(d.i64())}
				}
			}
			d.i32() // preferred replica: without a rack of ours there is none
			g.raw = d.bytes()
			if d.err == nil {
				got = append(got, g)
			}
		}
	}
	return got, d.err
}
