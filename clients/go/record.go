package tidewire

import (
	"encoding/json"
	"fmt"
	"time"
)

// Item is what a subscription delivers, in order: *[Record], *[Live], *[Gap] or *[Resumed].
type Item interface{ item() }

// Record is one Kafka record. Exactly one of Data, Text, Bytes and Null says what its value is.
type Record struct {
	Subject  string // its own, also where a pattern was subscribed to
	Position Position
	// Prev is the record before this one of the same subject and partition; nil where unknown.
	Prev    *Position
	Time    time.Time         // Kafka's timestamp, to the millisecond
	Data    json.RawMessage   // the value, if it is JSON
	Text    *string           // the value, if it is other valid UTF-8
	Bytes   []byte            // the value, if it is neither
	Null    bool              // a tombstone
	Headers map[string][]byte // nil when there are none
	Frame   []byte            // the protocol's JSON object, as received
}

// Value is the record's value as bytes; nil for a tombstone. JSON may differ from what was produced in
// white space.
func (r *Record) Value() []byte {
	switch {
	case r.Null:
		return nil
	case r.Data != nil:
		return r.Data
	case r.Text != nil:
		return []byte(*r.Text)
	case r.Bytes != nil:
		return r.Bytes
	}
	return []byte{}
}

// Live follows the last record that was there already when the subscription was made.
type Live struct{}

// Lost is a run of records that cannot be delivered, both ends included.
type Lost struct {
	Partition int32
	From, To  Position
}

// Gap says, in its place in the stream, that records are missing and cannot be had.
type Gap struct {
	// Reason is "evicted", "truncated" or "unknown_epoch" as the cluster said it, or "missed" when a
	// record showed that one before it was never received and a second attempt did not bring it.
	Reason string
	At     Vector // where the subscription goes on
	Lost   []Lost // what is missing, where known
}

// Resumed says that the subscription went on after a break in the connection without missing or
// repeating anything. (Where something is missing, a Gap is delivered in its place.)
type Resumed struct {
	Node, Previous string // names of the nodes; they differ if the client moved
	At             Vector
}

func (*Record) item()  {}
func (*Live) item()    {}
func (*Gap) item()     {}
func (*Resumed) item() {}

// decodeRecord makes a Record of a msg object. The frame must not be changed afterwards.
func decodeRecord(frame []byte) (*Record, error) {
	var m struct {
		Subject string                     `json:"subject"`
		Pos     *Position                  `json:"pos"`
		Prev    *[2]uint64                 `json:"prev"`
		TS      int64                      `json:"ts"`
		Data    json.RawMessage            `json:"data"`
		Text    *string                    `json:"text"`
		B64     *[]byte                    `json:"b64"`
		Null    bool                       `json:"null"`
		Headers map[string]json.RawMessage `json:"headers"`
	}
	if err := json.Unmarshal(frame, &m); err != nil {
		return nil, err
	}
	if m.Subject == "" || m.Pos == nil {
		return nil, fmt.Errorf("msg without subject or pos: %.200s", frame)
	}
	r := &Record{
		Subject: m.Subject, Position: *m.Pos, Time: time.UnixMilli(m.TS),
		Data: m.Data, Text: m.Text, Null: m.Null, Frame: frame,
	}
	if m.B64 != nil {
		r.Bytes = *m.B64
		if r.Bytes == nil {
			r.Bytes = []byte{}
		}
	}
	if m.Prev != nil {
		r.Prev = &Position{Partition: m.Pos.Partition, Epoch: m.Prev[0], Seqno: m.Prev[1]}
	}
	for name, raw := range m.Headers {
		value, err := decodeHeader(raw)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", name, err)
		}
		if r.Headers == nil {
			r.Headers = make(map[string][]byte, len(m.Headers))
		}
		r.Headers[name] = value
	}
	return r, nil
}

// decodeHeader reads a header's value: a string, {"b64":"…"} where it is not UTF-8, or null.
func decodeHeader(raw json.RawMessage) ([]byte, error) {
	if len(raw) > 0 && raw[0] == '{' {
		var b struct {
			B64 []byte `json:"b64"`
		}
		err := json.Unmarshal(raw, &b)
		return b.B64, err
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return nil, err
	}
	return []byte(*s), nil
}
