package kafkaio

import (
	"context"
	"net"
	"strconv"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/tidewire/tidewire/bridge"
)

// Metadata, versions 8 to 12. From 9 on it is encoded flexibly, from 10 on it brings topic ids; the
// oldest stands for Kafka 2.3 and later, the newest is in every broker since 3.0.
const (
	metadataMin = 8
	metadataMax = 12
)

// clusterMeta is one answer about the cluster.
type clusterMeta struct {
	brokers map[int32]string // address by node id
	topics  []topicAnswer
}

type topicAnswer struct {
	name       string
	id         bridge.TopicID
	code       int16
	internal   bool
	partitions []partitionAnswer
}

type partitionAnswer struct {
	index  int32
	code   int16
	leader int32 // node id; -1 none
	epoch  int32
}

// metadataVersion asks the broker which version of Metadata to use.
func (w *wire) metadataVersion(ctx context.Context) (int16, error) {
	return w.version(ctx, protocol.Metadata, metadataMin, metadataMax)
}

// version asks the broker for the newest version of a request that it has and that lies in [oursMin, oursMax].
func (w *wire) version(ctx context.Context, api protocol.ApiKey, oursMin, oursMax int16) (int16, error) {
	body, err := w.do(ctx, apiVersionsKey, 0, false, 0, func(*wireWriter) {})
	if err != nil {
		return 0, err
	}
	d := wireReader{b: body}
	if code := d.i16(); code != 0 && d.err == nil {
		return 0, kafkaError(code)
	}
	for n := d.count(6); n > 0 && d.err == nil; n-- {
		key, lo, hi := d.i16(), d.i16(), d.i16()
		if key != int16(api) || d.err != nil {
			continue
		}
		if hi < oursMin || lo > oursMax {
			return 0, &VersionError{Key: api, OursMin: oursMin, OursMax: oursMax, BrokerMin: lo, BrokerMax: hi}
		}
		return min(hi, oursMax), nil
	}
	if d.err == nil {
		d.fail("no version of " + api.String())
	}
	return 0, d.err
}

// metadata asks about topics by name, or about all when names is nil. It never creates a topic.
func (w *wire) metadata(ctx context.Context, version int16, names []string) (clusterMeta, error) {
	flexible := version >= 9
	body, err := w.do(ctx, apiMetadata, version, flexible, 0, func(e *wireWriter) {
		encodeMetadata(e, version, names)
	})
	if err != nil {
		return clusterMeta{}, err
	}
	return decodeMetadata(body, version)
}

func encodeMetadata(e *wireWriter, version int16, names []string) {
	flexible := version >= 9
	switch {
	case names == nil && flexible:
		e.b = append(e.b, 0) // null
	case names == nil:
		e.i32(-1)
	case flexible:
		e.compactLen(len(names))
	default:
		e.i32(int32(len(names)))
	}
	for _, name := range names {
		if !flexible {
			e.str(name)
			continue
		}
		if version >= 10 {
			e.b = append(e.b, make([]byte, 16)...)
		}
		e.compactStr(name)
		e.tags()
	}
	e.bool(false) // create topics
	if version <= 10 {
		e.bool(false) // operations allowed on the cluster
	}
	e.bool(false) // operations allowed on the topics
	if flexible {
		e.tags()
	}
}

func decodeMetadata(body []byte, version int16) (clusterMeta, error) {
	d := versionedReader{wireReader: wireReader{b: body}, flexible: version >= 9}
	m := clusterMeta{brokers: map[int32]string{}}
	d.i32() // throttle
	for n := d.array(10); n > 0 && d.err == nil; n-- {
		id, host, port := d.i32(), d.string(), d.i32()
		d.string() // rack
		d.end()
		m.brokers[id] = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	d.string() // cluster id
	d.i32()    // controller
	for n := d.array(9); n > 0 && d.err == nil; n-- {
		t := topicAnswer{code: d.i16(), name: d.string()}
		if version >= 10 {
			copy(t.id[:], d.take(16))
		}
		t.internal = d.i8() != 0
		for p := d.array(17); p > 0 && d.err == nil; p-- {
			a := partitionAnswer{code: d.i16(), index: d.i32(), leader: d.i32(), epoch: d.i32()}
			for range 3 { // replicas, in sync, offline
				d.take(4 * d.array(4))
			}
			d.end()
			t.partitions = append(t.partitions, a)
		}
		d.i32() // operations
		d.end()
		if d.err == nil {
			m.topics = append(m.topics, t)
		}
	}
	if version <= 10 {
		d.i32() // operations
	}
	d.end()
	return m, d.err
}

// topicMissing is the code of a topic that a broker does not know.
const topicMissing = int16(kafka.UnknownTopicOrPartition)
