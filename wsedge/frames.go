package wsedge

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidewire/tidewire/bridge"
)

// Format pins the values of a topic to one form.
type Format uint8

const (
	// FormatByContent: data if the value is JSON, else text if it is UTF-8, else b64.
	FormatByContent Format = iota
	// FormatJSON is what by content does: a value that is no JSON still has to reach the client, as
	// text or b64.
	FormatJSON
	// FormatText: text if the value is UTF-8, JSON or not, else b64.
	FormatText
	// FormatBinary: always b64.
	FormatBinary
)

// FrameEncoder makes the `msg` frames of records: whole WebSocket frames, unmasked as a server's are,
// the same for every receiver. It has no state but its configuration; any goroutine may use it.
type FrameEncoder struct {
	formats map[string]Format
}

// NewFrameEncoder makes an encoder with the forms that topics are pinned to; others go by content.
func NewFrameEncoder(formats map[string]Format) *FrameEncoder {
	return &FrameEncoder{formats: formats}
}

// AppendMsg appends the frame of a record to dst. prev is the position of the record before it with the
// same subject in the same partition, when hasPrev. Of headers with the same key the last wins, a null
// header value is null, bytes of a header's key that are not UTF-8 become U+FFFD, and the headers that
// Tidewire itself puts on what clients publish are left out.
func (e *FrameEncoder) AppendMsg(dst []byte, tp bridge.TopicPartition, r bridge.Record, pos, prev bridge.Position, hasPrev bool) []byte {
	dst, at := beginFrame(dst)
	dst = append(dst, `{"op":"msg","subject":`...)
	dst = appendSubjectOf(dst, tp.Topic, r.Key)
	dst = append(dst, `,"pos":`...)
	dst = appendPosition(dst, tp.Partition, pos)
	if hasPrev {
		dst = append(dst, `,"prev":`...)
		dst = appendPair(dst, prev)
	}
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, r.Timestamp, 10)
	dst = appendValue(dst, e.formats[tp.Topic], r.Value)
	dst = appendHeaders(dst, r.Headers)
	dst = append(dst, '}')
	return endFrame(dst, at)
}

// appendSubjectOf appends the subject of a record as a JSON string. The text of a key has neither
// control characters nor broken UTF-8, so that only quotes and backslashes are left to escape.
func appendSubjectOf(dst []byte, topic string, key []byte) []byte {
	dst = append(dst, '"', '/')
	dst = append(dst, topic...)
	if key != nil {
		dst = append(dst, '/')
		from := len(dst)
		dst = appendKeyText(dst, key)
		extra := 0
		for _, c := range dst[from:] {
			if c == '"' || c == '\\' {
				extra++
			}
		}
		if extra > 0 {
			to := len(dst) - 1
			dst = append(dst, make([]byte, extra)...)
			for i := len(dst) - 1; i > to; i, to = i-1, to-1 {
				if dst[i] = dst[to]; dst[to] == '"' || dst[to] == '\\' {
					i--
					dst[i] = '\\'
				}
			}
		}
	}
	return append(dst, '"')
}

// appendValue appends the value in its form. To validJSON strings that are not UTF-8 are good, too, so that is
// asked first. JSON nested more than 10,000 levels deep stands as text.
func appendValue(dst []byte, format Format, value []byte) []byte {
	switch {
	case value == nil:
		return append(dst, `,"null":true`...)
	case format == FormatBinary || !utf8.Valid(value):
		dst = append(dst, `,"b64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, value)
		return append(dst, '"')
	case format != FormatText && validJSON(value):
		dst = append(dst, `,"data":`...)
		return append(dst, value...)
	default:
		dst = append(dst, `,"text":`...)
		return appendQuoted(dst, value)
	}
}

func appendHeaders(dst []byte, headers []bridge.Header) []byte {
	if len(headers) == 0 {
		return dst
	}
	// The last of each key. A map is worth it only beyond a few: it keeps the cost linear.
	var last map[string]int
	if len(headers) > 8 {
		last = make(map[string]int, len(headers))
		for i, h := range headers {
			last[h.Key] = i
		}
	}
	open := false
	for i, h := range headers {
		if strings.HasPrefix(h.Key, bridge.HeaderReserved) || overridden(headers, last, i) {
			continue
		}
		if !open {
			dst = append(dst, `,"headers":{`...)
			open = true
		} else {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, h.Key)
		dst = append(dst, ':')
		switch {
		case h.Value == nil:
			dst = append(dst, "null"...)
		case utf8.Valid(h.Value):
			dst = appendQuoted(dst, h.Value)
		default:
			dst = append(dst, `{"b64":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, h.Value)
			dst = append(dst, `"}`...)
		}
	}
	if open {
		dst = append(dst, '}')
	}
	return dst
}

func overridden(headers []bridge.Header, last map[string]int, i int) bool {
	if last != nil {
		return last[headers[i].Key] != i
	}
	for _, h := range headers[i+1:] {
		if h.Key == headers[i].Key {
			return true
		}
	}
	return false
}

// A frame's header (RFC 6455, section 5.2): FIN and the opcode, then the length in 1, 3 or 9 bytes.
const (
	headText  = 0x81
	headClose = 0x88
	headPing  = 0x89
	headGuess = 4 // the length of the header of a frame of 126 to 65535 bytes
)

// beginFrame makes room for the header of a text frame; endFrame, given where that was, fills it in,
// and moves the payload when it is so short or long that the header has another length.
func beginFrame(dst []byte) ([]byte, int) {
	return append(dst, headText, 0, 0, 0), len(dst)
}

func endFrame(dst []byte, at int) []byte {
	n := len(dst) - at - headGuess
	switch {
	case n < 126:
		copy(dst[at+2:], dst[at+headGuess:])
		dst[at+1] = byte(n)
		return dst[:len(dst)-2]
	case n <= 0xffff:
		dst[at+1] = 126
		binary.BigEndian.PutUint16(dst[at+2:], uint16(n))
		return dst
	default:
		dst = append(dst, 0, 0, 0, 0, 0, 0)
		copy(dst[at+10:], dst[at+headGuess:at+headGuess+n])
		dst[at+1] = 127
		binary.BigEndian.PutUint64(dst[at+2:], uint64(n))
		return dst
	}
}

// frameLen is the length of the unmasked frame that begins at b[0], header included.
func frameLen(b []byte) int {
	switch b[1] {
	case 127:
		return 10 + int(binary.BigEndian.Uint64(b[2:]))
	case 126:
		return 4 + int(binary.BigEndian.Uint16(b[2:]))
	default:
		return 2 + int(b[1])
	}
}

// maxCloseText is what is left of a control frame's 125 bytes after the code.
const maxCloseText = 123

func appendClose(dst []byte, code int, reason string) []byte {
	reason = reason[:min(len(reason), maxCloseText)]
	dst = append(dst, headClose, byte(2+len(reason)), byte(code>>8), byte(code))
	return append(dst, reason...)
}

func appendPosition(dst []byte, partition int32, p bridge.Position) []byte {
	dst = append(dst, '[')
	dst = strconv.AppendInt(dst, int64(partition), 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, uint64(p.Epoch), 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, uint64(p.Seqno), 10)
	return append(dst, ']')
}

func appendPair(dst []byte, p bridge.Position) []byte {
	dst = append(dst, '[')
	dst = strconv.AppendUint(dst, uint64(p.Epoch), 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, uint64(p.Seqno), 10)
	return append(dst, ']')
}

func sortVector(v []PartitionPosition) {
	slices.SortFunc(v, func(a, b PartitionPosition) int { return cmp.Compare(a.Partition, b.Partition) })
}

func appendVector(dst []byte, v Vector) []byte {
	dst = append(dst, '[')
	for i, p := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendPosition(dst, p.Partition, p.Position)
	}
	return append(dst, ']')
}

// The functions below append one whole frame each, named for its op.

func beginOp(dst []byte, op string, id uint64) ([]byte, int) {
	dst, at := beginFrame(dst)
	dst = append(dst, `{"op":"`...)
	dst = append(dst, op...)
	dst = append(dst, '"')
	if id != 0 {
		dst = append(dst, `,"id":`...)
		dst = strconv.AppendUint(dst, id, 10)
	}
	return dst, at
}

func endOp(dst []byte, at int) []byte { return endFrame(append(dst, '}'), at) }

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendQuoted(dst, value)
}

func appendNumber(dst []byte, name string, value int64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, value, 10)
}

func appendWelcome(dst []byte, node, session string, heartbeatMS, maxFrame int64, mustAuth bool) []byte {
	dst, at := beginOp(dst, "welcome", 0)
	dst = appendNumber(dst, "version", 1)
	dst = appendField(dst, "node", node)
	dst = appendField(dst, "session", session)
	dst = appendNumber(dst, "heartbeat_ms", heartbeatMS)
	dst = appendNumber(dst, "max_frame_bytes", maxFrame)
	need := "none"
	if mustAuth {
		need = "required"
	}
	dst = appendField(dst, "auth", need)
	return endOp(dst, at)
}

// appendAuthed says until when a token is taken, in unix milliseconds; 0: for ever.
func appendAuthed(dst []byte, id uint64, expires int64) []byte {
	dst, at := beginOp(dst, "authed", id)
	if expires == 0 {
		dst = append(dst, `,"expires":null`...)
	} else {
		dst = appendNumber(dst, "expires", expires)
	}
	return endOp(dst, at)
}

func appendExpiring(dst []byte, expires int64) []byte {
	dst, at := beginOp(dst, "expiring", 0)
	dst = appendNumber(dst, "expires", expires)
	return endOp(dst, at)
}

// lostRange is what a resume could not get of one partition. Both ends are zero when they are not known.
type lostRange struct {
	partition int32
	from, to  bridge.Position
}

func appendSubbed(dst []byte, id uint64, subject string, at Vector, resumed bool, gap string, lost []lostRange) []byte {
	dst, start := beginOp(dst, "subbed", id)
	dst = appendField(dst, "subject", subject)
	dst = append(dst, `,"at":`...)
	dst = appendVector(dst, at)
	if resumed {
		dst = append(dst, `,"recovered":`...)
		dst = strconv.AppendBool(dst, gap == "")
	}
	if gap != "" {
		dst = appendField(dst, "gap", gap)
	}
	if len(lost) > 0 {
		dst = append(dst, `,"lost":[`...)
		for i, l := range lost {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"partition":`...)
			dst = strconv.AppendInt(dst, int64(l.partition), 10)
			dst = append(dst, `,"from":`...)
			dst = appendPair(dst, l.from)
			dst = append(dst, `,"to":`...)
			dst = appendPair(dst, l.to)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	return endOp(dst, start)
}

func appendLive(dst []byte, subject string) []byte {
	dst, at := beginOp(dst, "live", 0)
	dst = appendField(dst, "subject", subject)
	return endOp(dst, at)
}

func appendGap(dst []byte, subject string, partition int32, p bridge.Position, reason string) []byte {
	dst, at := beginOp(dst, "gap", 0)
	dst = appendField(dst, "subject", subject)
	dst = append(dst, `,"at":[`...)
	dst = appendPosition(dst, partition, p)
	dst = append(dst, ']')
	dst = appendField(dst, "reason", reason)
	return endOp(dst, at)
}

func appendUnsubbed(dst []byte, id uint64, subject, reason string) []byte {
	dst, at := beginOp(dst, "unsubbed", id)
	dst = appendField(dst, "subject", subject)
	dst = appendField(dst, "reason", reason)
	return endOp(dst, at)
}

func appendAcked(dst []byte, id uint64, r bridge.PublishResult) []byte {
	dst, at := beginOp(dst, "acked", id)
	dst = appendNumber(dst, "partition", int64(r.Partition))
	dst = appendNumber(dst, "offset", int64(r.Offset))
	if r.Pos != (bridge.Position{}) {
		dst = append(dst, `,"pos":`...)
		dst = appendPosition(dst, r.Partition, r.Pos)
	}
	if r.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return endOp(dst, at)
}

func appendError(dst []byte, e *OpError) []byte {
	dst, at := beginOp(dst, "error", e.ID)
	dst = appendField(dst, "code", e.Code)
	dst = appendField(dst, "message", e.Message)
	if e.Retry > 0 {
		dst = appendNumber(dst, "retry_ms", max(1, e.Retry.Milliseconds()))
	}
	return endOp(dst, at)
}

func appendPong(dst []byte, id uint64) []byte {
	dst, at := beginOp(dst, "pong", id)
	return endOp(dst, at)
}

func appendHeartbeat(dst []byte) []byte {
	dst, at := beginOp(dst, "hb", 0)
	return endOp(dst, at)
}

func appendBye(dst []byte, reason string, retryMS int64, nodes []string) []byte {
	dst, at := beginOp(dst, "bye", 0)
	dst = appendField(dst, "reason", reason)
	dst = appendNumber(dst, "retry_ms", retryMS)
	if len(nodes) > 0 {
		dst = append(dst, `,"nodes":[`...)
		for i, n := range nodes {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendQuoted(dst, n)
		}
		dst = append(dst, ']')
	}
	return endOp(dst, at)
}
