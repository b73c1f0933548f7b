package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicState is what Kafka says of a topic: its id, and its partitions' first and last stable offsets.
type topicState struct {
	id         [16]byte
	partitions []int32
	leaders    map[int32]int32
	first, end map[int32]int64
}

// createTopics makes the topics that are missing, never to be emptied by Kafka itself.
func (d *Driver) createTopics(ctx context.Context, cl *kgo.Client) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15000
	for _, name := range d.o.Topics {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(d.o.Partitions), int16(d.o.Replication)
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = "retention.ms", kmsg.StringPtr("-1")
		t.Configs = append(t.Configs, c)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", t.Topic, err)
		}
	}
	return nil
}

// topicState asks for the state of a topic. It sends its own requests, so that nothing is answered from
// what the client remembers.
func readState(ctx context.Context, cl *kgo.Client, topic string) (*topicState, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("ask for topic %s: %w", topic, err)
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("ask for topic %s: %d answers", topic, len(resp.Topics))
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return nil, fmt.Errorf("ask for topic %s: %w", topic, err)
	}
	s := &topicState{id: resp.Topics[0].TopicID, leaders: map[int32]int32{}}
	for _, p := range resp.Topics[0].Partitions {
		s.partitions = append(s.partitions, p.Partition)
		s.leaders[p.Partition] = p.Leader
	}
	slices.Sort(s.partitions)
	if s.first, err = listOffsets(ctx, cl, topic, s.partitions, -2); err != nil {
		return nil, err
	}
	s.end, err = listOffsets(ctx, cl, topic, s.partitions, -1)
	return s, err
}

// listOffsets returns the first (-2) or the last stable (-1) offset of each partition.
func listOffsets(ctx context.Context, cl *kgo.Client, topic string, partitions []int32, when int64) (map[int32]int64, error) {
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, n := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = n, when
		t.Partitions = append(t.Partitions, p)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	out := map[int32]int64{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("list offsets of %s-%d: %w", topic, p.Partition, err)
			}
			out[p.Partition] = p.Offset
		}
	}
	return out, nil
}

// readTopic returns all records of a topic that a read_committed consumer sees up to the ends of its state.
func (d *Driver) readTopic(ctx context.Context, cl *kgo.Client, topic string, s *topicState) ([]Record, error) {
	var out []Record
	for _, p := range s.partitions {
		for at := s.first[p]; at < s.end[p]; {
			f, next, err := fetch(ctx, cl, topic, s, p, at)
			if err == nil && next <= at {
				err = fmt.Errorf("nothing at %d, though the last stable offset is %d", at, s.end[p])
			}
			if err != nil {
				return nil, fmt.Errorf("read %s-%d at %d: %w", topic, p, at, err)
			}
			for _, r := range f.Records {
				if r.Offset < s.end[p] {
					out = append(out, d.taken(r))
				}
			}
			at = next
		}
	}
	return out, nil
}

// taken is a record as it stands in a history.
func (d *Driver) taken(r *kgo.Record) Record {
	t := Record{Partition: Partition{r.Topic, r.Partition}, Offset: r.Offset, Subject: d.intern(subjectOf(r.Topic, r.Key)), TS: r.Timestamp.UnixMilli()}
	for _, h := range r.Headers {
		switch h.Key {
		case headerID:
			t.ID = d.intern(string(h.Value))
			_, want := valueOf(t.ID)
			t.Damaged = string(want) != string(r.Value) || (want == nil) != (r.Value == nil)
		case headerMid:
			t.Mid = string(h.Value)
		case headerUser:
			t.User = string(h.Value)
		}
	}
	if t.ID == "" {
		t.ID = foreignID(t.Subject, t.TS, r.Value)
	}
	return t
}

// fetch returns the committed records of one fetch and the offset that follows its last batch. A consumer
// of the library hands out nothing for a log's end of aborted records, so that only this tells the end.
func fetch(ctx context.Context, cl *kgo.Client, topic string, s *topicState, partition int32, at int64) (kgo.FetchPartition, int64, error) {
	none := kgo.FetchPartition{}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, at, 8<<20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID, ft.Partitions = topic, s.id, append(ft.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, 8<<20
	req.IsolationLevel = 1
	req.Topics = append(req.Topics, ft)
	raw, err := cl.Broker(int(s.leaders[partition])).RetriableRequest(ctx, req)
	if err != nil {
		return none, 0, err
	}
	resp := raw.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return none, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return none, 0, errors.New("the answer is not for the one partition asked for")
	}
	f, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: partition,
	}, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	return f, next, f.Err
}

// readBack reads all topics as they are, trying again while Kafka is not there.
func (d *Driver) readBack(ctx context.Context) (map[string]*topicState, []Record, error) {
	cl, err := d.kafkaClient()
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	for {
		states, records := map[string]*topicState{}, []Record(nil)
		err = nil
		for _, topic := range d.o.Topics {
			var s *topicState
			var part []Record
			if s, err = readState(ctx, cl, topic); err == nil {
				part, err = d.readTopic(ctx, cl, topic, s)
			}
			if err != nil {
				break
			}
			states[topic] = s
			records = append(records, part...)
		}
		if err == nil {
			return states, records, nil
		}
		sleep(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("read back what Kafka took: %w", err)
		}
	}
}
