package wsedge

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// OpKind says what a client asks for.
type OpKind uint8

// The ops of a client.
const (
	OpAuth OpKind = iota + 1
	OpSub
	OpUnsub
	OpPub
	OpPing
)

var opKinds = map[string]OpKind{"auth": OpAuth, "sub": OpSub, "unsub": OpUnsub, "pub": OpPub, "ping": OpPing}

// Limits of what an op may carry. They hold before anything of that size is allocated.
const (
	maxID         = 1<<53 - 1
	maxVector     = 1 << 14 // entries of a resume vector: more partitions than a topic has
	maxMid        = 128     // bytes
	maxOpHeaders  = 256
	maxHistory    = 1 << 30
	maxSeqno      = math.MaxInt64
	maxConflateMS = 3_600_000
)

// Op is one op of a client, checked as far as it can be without knowing the topics.
type Op struct {
	Kind    OpKind
	ID      uint64 // 0: none
	Token   string // auth
	Subject Subject
	Text    string // the subject's text
	History int    // sub: n newest records first, -1 all
	Resume  []PartitionPosition
	Resumed bool // sub: resume was given
	// Conflate is the interval of a sub that wants no more than one record a key in it; 0: all records.
	Conflate time.Duration
	Value    []byte          // pub: nil for a tombstone
	Headers  []bridge.Header // pub
	Mid      string          // pub
	Ack      bridge.Ack      // pub

	by  *auth.Identity // on whose behalf; nil: nobody's
	yes yes            // sub, and pub over HTTP: what somebody who was asked about it says
}

// PartitionPosition is one entry of a vector.
type PartitionPosition struct {
	Partition int32
	bridge.Position
}

// Vector is a subscription's place in its subject, sorted by partition.
type Vector []PartitionPosition

// NextOp takes one op off the front of a frame: an object, or what stands up to the next newline if that
// is none. It returns the text of it and the rest of the frame; the text is empty at the end. An object
// that does not end takes the rest of the frame with it, so that a frame is looked at once.
func NextOp(frame []byte) (text, rest []byte) {
	i := skipSpace(frame, 0)
	if i == len(frame) {
		return nil, nil
	}
	end := i
	if frame[i] == '{' {
		var ok bool
		if end, ok = endOfBrackets(frame, i); !ok {
			return frame[i:], nil
		}
	}
	// Up to the newline: what follows an object on its line makes it no object, and DecodeOp says so.
	if nl := bytes.IndexByte(frame[end:], '\n'); nl >= 0 {
		return bytes.TrimRight(frame[i:end+nl], " \t\r"), frame[end+nl+1:]
	}
	return bytes.TrimRight(frame[i:], " \t\r"), nil
}

// DecodeOp reads one op. The error is an *OpError, with the op's id where that could be read. The op
// keeps nothing of text.
func DecodeOp(text []byte) (Op, error) {
	var op Op
	err := op.decode(text)
	if err != nil {
		e := err.(*OpError)
		e.ID = op.ID
		return Op{}, e
	}
	return op, nil
}

// opFields are the raw texts of the fields that an op may have; nil where it has none.
type opFields struct {
	op, id, token, subject, history, resume, conflate, data, text, b64, headers, mid, ack []byte
}

func (f *opFields) slot(name []byte) *[]byte {
	switch string(name) {
	case `"op"`:
		return &f.op
	case `"id"`:
		return &f.id
	case `"token"`:
		return &f.token
	case `"subject"`:
		return &f.subject
	case `"history"`:
		return &f.history
	case `"resume"`:
		return &f.resume
	case `"conflate_ms"`:
		return &f.conflate
	case `"data"`:
		return &f.data
	case `"text"`:
		return &f.text
	case `"b64"`:
		return &f.b64
	case `"headers"`:
		return &f.headers
	case `"mid"`:
		return &f.mid
	case `"ack"`:
		return &f.ack
	}
	return nil // of a later version of the protocol: ignored
}

func (op *Op) decode(text []byte) error {
	if len(text) == 0 || text[0] != '{' || !validJSON(text) {
		return badRequest("an op is a JSON object; several in a frame are separated by newlines")
	}
	var f opFields
	err := eachField(text, func(name, value []byte) error {
		if bytes.IndexByte(name, '\\') >= 0 {
			if s, ok := unquote(name); ok {
				name = appendQuoted(nil, s)
			}
		}
		if slot := f.slot(name); slot != nil {
			if *slot != nil {
				return badRequest("the field " + string(name) + " is there twice")
			}
			*slot = value
		}
		return nil
	})
	if f.id != nil {
		id, ok := number(f.id, maxID)
		if !ok || id == 0 {
			return badRequest("id is a positive integer below 2^53")
		}
		op.ID = id
	}
	if err != nil {
		return err
	}
	kind, err := stringField("op", f.op, true)
	if err != nil {
		return err
	}
	op.Kind = opKinds[kind]
	switch op.Kind {
	case OpAuth:
		op.Token, err = stringField("token", f.token, true)
		return err
	case OpPing:
		return nil
	case OpSub:
		return op.decodeSub(&f)
	case OpUnsub:
		return op.decodeSubject(&f)
	case OpPub:
		return op.decodePub(&f)
	}
	return badRequest("op is one of auth, sub, unsub, pub, ping")
}

func stringField(name string, value []byte, required bool) (string, error) {
	if value == nil {
		if required {
			return "", badRequest(name + " is missing: it is a string")
		}
		return "", nil
	}
	if value[0] != '"' {
		return "", badRequest(name + " is a string")
	}
	s, ok := unquote(value)
	if !ok {
		return "", badRequest(name + " holds half of a surrogate pair, which is no character")
	}
	return s, nil
}

func (op *Op) decodeSubject(f *opFields) (err error) {
	if op.Text, err = stringField("subject", f.subject, true); err == nil {
		op.Subject, err = ParseSubject(op.Text)
	}
	return err
}

func (op *Op) decodeSub(f *opFields) error {
	if err := op.decodeSubject(f); err != nil {
		return err
	}
	if string(f.history) != "null" {
		if err := op.setHistory(f.history); err != nil {
			return err
		}
	}
	if err := op.setConflate(f.conflate); err != nil {
		return err
	}
	if f.resume != nil && string(f.resume) != "null" {
		vector, err := decodeVector(f.resume)
		if err != nil {
			return err
		}
		op.Resume, op.Resumed = vector, true
	}
	return nil
}

// setHistory reads history; nothing means none.
func (op *Op) setHistory(text []byte) error {
	switch n, ok := number(text, maxSeqno); {
	case len(text) == 0:
	case string(text) == "-1":
		op.History = -1
	case !ok:
		return badRequest("history is a number of records, or -1 for all that are cached")
	default:
		op.History = int(min(n, maxHistory)) // more than any cache holds: all of it
	}
	return nil
}

// setConflate reads conflate_ms; nothing means 0.
func (op *Op) setConflate(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	n, ok := number(text, maxConflateMS)
	if !ok {
		return badRequest("conflate_ms is a number of milliseconds, at most 3600000")
	}
	op.Conflate = time.Duration(n) * time.Millisecond
	return nil
}

const vectorForm = "resume is a list of positions [partition, epoch, seqno], three non-negative integers each"

// decodeVector reads a vector in whatever order it comes. That no partition stands there twice is
// checked here; that each exists, by whoever knows the topic.
func decodeVector(text []byte) ([]PartitionPosition, error) {
	if text[0] != '[' {
		return nil, badRequest(vectorForm)
	}
	var vector []PartitionPosition
	err := eachElement(text, func(value []byte) error {
		if value[0] != '[' {
			return badRequest(vectorForm)
		}
		if len(vector) == maxVector {
			return badRequest("resume has more than " + strconv.Itoa(maxVector) + " positions")
		}
		var n [3]uint64
		i := 0
		err := eachElement(value, func(value []byte) error {
			limit := uint64(maxSeqno)
			if i == 0 {
				limit = math.MaxInt32
			}
			if i == len(n) {
				return badRequest(vectorForm)
			}
			var ok bool
			if n[i], ok = number(value, limit); !ok {
				return badRequest(vectorForm)
			}
			i++
			return nil
		})
		if err != nil {
			return err
		}
		if i != len(n) {
			return badRequest(vectorForm)
		}
		vector = append(vector, PartitionPosition{int32(n[0]), bridge.Position{Epoch: bridge.Epoch(n[1]), Seqno: bridge.Seqno(n[2])}})
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortVector(vector)
	for i := 1; i < len(vector); i++ {
		if vector[i].Partition == vector[i-1].Partition {
			return nil, badRequest("resume names partition " + strconv.Itoa(int(vector[i].Partition)) + " twice")
		}
	}
	return vector, nil
}

func (op *Op) decodePub(f *opFields) error {
	if err := op.decodeSubject(f); err != nil {
		return err
	}
	if op.Subject.IsPattern() {
		return badSubject("a publish goes to one subject: /topic/key, or /topic for a null key")
	}
	if err := op.decodeValue(f); err != nil {
		return err
	}
	var err error
	if op.Mid, err = stringField("mid", f.mid, false); err != nil {
		return err
	}
	if len(op.Mid) > maxMid || f.mid != nil && op.Mid == "" {
		return badRequest("mid is a string of 1 to 128 bytes")
	}
	ack, err := stringField("ack", f.ack, false)
	if err != nil {
		return err
	}
	switch ack {
	case "", "kafka":
		op.Ack = bridge.AckKafka
	case "replicated":
		op.Ack = bridge.AckReplicated
	default:
		return badRequest("ack is kafka or replicated")
	}
	if f.ack != nil && ack == "" {
		return badRequest("ack is kafka or replicated")
	}
	return op.decodeHeaders(f.headers)
}

func (op *Op) decodeValue(f *opFields) error {
	forms := 0
	for _, form := range [][]byte{f.data, f.text, f.b64} {
		if form != nil {
			forms++
		}
	}
	if forms > 1 {
		return badRequest("a publish has one of data, text and b64, or none of them for a null value")
	}
	switch {
	case f.data != nil:
		op.Value = bytes.Clone(f.data)
	case f.text != nil:
		s, err := stringField("text", f.text, true)
		if err != nil {
			return err
		}
		op.Value = append([]byte{}, s...)
	case f.b64 != nil:
		s, err := stringField("b64", f.b64, true)
		if err != nil {
			return err
		}
		v, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || strings.ContainsAny(s, "\r\n") {
			return badRequest("b64 is base64 with the standard alphabet and padding")
		}
		op.Value = append([]byte{}, v...)
	}
	return nil
}

func (op *Op) decodeHeaders(text []byte) error {
	if text == nil {
		return nil
	}
	if text[0] != '{' {
		return badRequest("headers is an object of strings")
	}
	seen := make(map[string]bool)
	return eachField(text, func(name, value []byte) error {
		if len(op.Headers) == maxOpHeaders {
			return badRequest("headers has more than " + strconv.Itoa(maxOpHeaders) + " fields")
		}
		key, ok := unquote(name)
		if !ok || value[0] != '"' {
			return badRequest("headers is an object of strings")
		}
		v, ok := unquote(value)
		if !ok {
			return badRequest("headers is an object of strings")
		}
		if strings.HasPrefix(key, bridge.HeaderReserved) {
			return badRequest("headers that begin with " + bridge.HeaderReserved + " are Tidewire's own")
		}
		if seen[key] {
			return badRequest("headers has a field twice")
		}
		seen[key] = true
		op.Headers = append(op.Headers, bridge.Header{Key: key, Value: append([]byte{}, v...)})
		return nil
	})
}
