package kafkaio

import (
	"context"

	"github.com/tidewire/tidewire/bridge"
)

// ListOffsets, version 5 (Kafka 2.2 and later, 4.x included).
const listOffsetsVersion = 5

// The times that mean a place instead.
const (
	timeLatest   = -1
	timeEarliest = -2
)

const (
	isolationUncommitted = 0
	isolationCommitted   = 1
)

// listOffset asks the leader for the offset at a time (or timeLatest, timeEarliest). It returns -1 when
// there is no such record, and a kafka.Error when the broker says so.
func (w *wire) listOffset(ctx context.Context, tp bridge.TopicPartition, epoch int32, at int64, isolation int8) (bridge.Offset, error) {
	body, err := w.do(ctx, apiListOffsets, listOffsetsVersion, false, 0, func(e *wireWriter) {
		e.i32(replicaConsumer)
		e.i8(isolation)
		e.i32(1)
		e.str(tp.Topic)
		e.i32(1)
		e.i32(tp.Partition)
		e.i32(epoch)
		e.i64(at)
	})
	if err != nil {
		return 0, err
	}
	return decodeListOffset(body, tp)
}

func decodeListOffset(body []byte, tp bridge.TopicPartition) (bridge.Offset, error) {
	d := wireReader{b: body}
	d.i32() // throttle
	for t := d.count(6); t > 0 && d.err == nil; t-- {
		topic := d.str()
		for p := d.count(26); p > 0 && d.err == nil; p-- {
			part, code := d.i32(), d.i16()
			d.i64() // timestamp
			off := bridge.Offset(d.i64())
			d.i32() // leader epoch
			if d.err != nil || topic != tp.Topic || part != tp.Partition {
				continue
			}
			if code != 0 {
				return 0, kafkaError(code)
			}
			return off, nil
		}
	}
	if d.err == nil {
		d.fail("it does not hold the partition")
	}
	return 0, d.err
}

// OffsetForLeaderEpoch, version 3 (Kafka 2.3 and later, 4.x included).
const epochEndVersion = 3

// epochEnd asks the leader for the highest leader epoch up to leader that its log knows, and where that ends;
// -1 and -1 when it knows none.
func (w *wire) epochEnd(ctx context.Context, tp bridge.TopicPartition, epoch int32, leader bridge.LeaderEpoch) (bridge.LeaderEpoch, bridge.Offset, error) {
	body, err := w.do(ctx, apiEpochEnd, epochEndVersion, false, 0, func(e *wireWriter) {
		e.i32(replicaConsumer)
		e.i32(1)
		e.str(tp.Topic)
		e.i32(1)
		e.i32(tp.Partition)
		e.i32(epoch)
		e.i32(int32(leader))
	})
	if err != nil {
		return 0, 0, err
	}
	return decodeEpochEnd(body, tp)
}

func decodeEpochEnd(body []byte, tp bridge.TopicPartition) (bridge.LeaderEpoch, bridge.Offset, error) {
	d := wireReader{b: body}
	d.i32() // throttle
	for t := d.count(6); t > 0 && d.err == nil; t-- {
		topic := d.str()
		for p := d.count(18); p > 0 && d.err == nil; p-- {
			code, part := d.i16(), d.i32()
			leader, end := bridge.LeaderEpoch(d.i32()), bridge.Offset(d.i64())
			if d.err != nil || topic != tp.Topic || part != tp.Partition {
				continue
			}
			if code != 0 {
				return 0, 0, kafkaError(code)
			}
			return leader, end, nil
		}
	}
	if d.err == nil {
		d.fail("it does not hold the partition")
	}
	return 0, 0, d.err
}
