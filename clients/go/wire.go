package tidewire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Subprotocol is what the client names in the WebSocket handshake.
const Subprotocol = "tidewire.v1.json"

// request is any op of the client; fields that an op does not have are left out.
type request struct {
	Op      string  `json:"op"`
	ID      int64   `json:"id,omitempty"`
	Token   string  `json:"token,omitempty"`
	Subject string  `json:"subject,omitempty"`
	History int     `json:"history,omitempty"`
	Resume  *Vector `json:"resume,omitempty"`
	// Conflate is in milliseconds.
	Conflate int64             `json:"conflate_ms,omitempty"`
	Data     json.RawMessage   `json:"data,omitempty"`
	Text     *string           `json:"text,omitempty"`
	B64      *[]byte           `json:"b64,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Mid      string            `json:"mid,omitempty"`
	Ack      string            `json:"ack,omitempty"`
}

// encode makes one line of JSON. HTML characters are not escaped: the text of a published value is its
// record's value.
func (r *request) encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// answer is any op of the server but msg, whose decoding is decodeRecord's.
type answer struct {
	Op      string `json:"op"`
	ID      int64  `json:"id"`
	Subject string `json:"subject"`
	// welcome
	Version     int    `json:"version"`
	Node        string `json:"node"`
	Session     string `json:"session"`
	HeartbeatMS int64  `json:"heartbeat_ms"`
	MaxFrame    int64  `json:"max_frame_bytes"`
	Auth        string `json:"auth"`
	// subbed, gap
	At        Vector     `json:"at"`
	Recovered *bool      `json:"recovered"`
	Gap       string     `json:"gap"`
	Lost      []wireLost `json:"lost"`
	Reason    string     `json:"reason"`
	// acked
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Pos       *Position `json:"pos"`
	Duplicate bool      `json:"duplicate"`
	// authed
	Expires *int64 `json:"expires"`
	// error, bye
	Code    string `json:"code"`
	Message string `json:"message"`
	RetryMS int64  `json:"retry_ms"`
	// Nodes is decoded on its own: what a newer server may put there must cost nothing.
	Nodes json.RawMessage `json:"nodes"`
}

// wireLost is one entry of "lost": from and to are [epoch, seqno].
type wireLost struct {
	Partition int32      `json:"partition"`
	From      *[2]uint64 `json:"from"`
	To        *[2]uint64 `json:"to"`
}

// retry is retry_ms, held to what is sensible: a peer must not put us to sleep for a year.
func (a *answer) retry() time.Duration {
	const most = 10 * time.Minute
	if a.RetryMS < 0 {
		return 0
	}
	return time.Duration(min(a.RetryMS, int64(most/time.Millisecond))) * time.Millisecond
}

func (a *answer) err() *Error {
	return &Error{Code: a.Code, Message: a.Message, Retry: a.retry()}
}

func (a *answer) lost() []Lost {
	var lost []Lost
	for _, w := range a.Lost {
		l := Lost{Partition: w.Partition}
		if w.From != nil {
			l.From = Position{w.Partition, w.From[0], w.From[1]}
		}
		if w.To != nil {
			l.To = Position{w.Partition, w.To[0], w.To[1]}
		}
		lost = append(lost, l)
	}
	return lost
}

// opOf reads only the op of a frame: most frames are msg, whose other fields are decoded apart.
func opOf(frame []byte) (string, error) {
	if bytes.HasPrefix(frame, []byte(`{"op":"msg",`)) {
		return "msg", nil
	}
	var head struct {
		Op string `json:"op"`
	}
	if err := json.Unmarshal(frame, &head); err != nil {
		return "", fmt.Errorf("frame %.100q: %w", frame, err)
	}
	return head.Op, nil
}
