package verify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// headerID is the record header that carries a record's identity from its writer to every subscriber.
const headerID = "verify-id"

// The headers in which Tidewire keeps what a publish was.
const (
	headerMid  = "tidewire-mid"
	headerUser = "tidewire-user"
)

// form is the way in which a value stands in an op: each has a rule of its own in the protocol.
type form uint8

const (
	formData form = iota
	formText
	formB64
	formNull
)

// valueOf returns the value that goes with an identity, so that whoever reads it can tell whether it is
// whole: mostly JSON, but also other text, bytes and tombstones.
func valueOf(id string) (form, []byte) {
	h := fnv.New32a()
	h.Write([]byte(id))
	sum := h.Sum32()
	pad := strings.Repeat(string(rune('a'+sum%26)), int(sum>>8%200))
	if size := bigSize(id); size > 0 {
		return formData, fmt.Appendf(nil, `{"id":%q,"pad":"%s"}`, id, strings.Repeat(string(rune('a'+sum%26)), size))
	}
	switch sum % 16 {
	case 0:
		return formNull, nil
	case 1, 2:
		return formText, fmt.Appendf(nil, "%s\n\"%s\" é", id, pad)
	case 3:
		return formB64, append([]byte{0xff, 0xfe, 0}, id...)
	}
	return formData, fmt.Appendf(nil, `{"id":%q,"n":%d,"pad":"%s"}`, id, sum, pad)
}

// maxBig bounds what bigSize believes.
const maxBig = 1 << 20

// bigSize returns how many bytes of padding an identity asks for by ending in "+" and their number; 0: none.
func bigSize(id string) int {
	_, digits, _ := strings.Cut(id, "+")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > maxBig {
		return 0
	}
	return n
}

// intact says whether a value as it came is the one of its identity.
func intact(id string, f form, value []byte) bool {
	want, v := valueOf(id)
	return f == want && string(v) == string(value)
}

// foreignID is the identity of a record that was not written by this driver: as good a one as its parts
// make.
func foreignID(subject string, ts int64, value []byte) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d %s", subject, ts, value)
	return fmt.Sprintf("#%x", h.Sum64())
}

// value returns the form and bytes of a msg.
func (f *frame) value() (form, []byte) {
	switch {
	case f.Null:
		return formNull, nil
	case f.Text != nil:
		return formText, []byte(*f.Text)
	case f.B64 != nil:
		return formB64, *f.B64
	}
	return formData, f.Data
}

// publishOp puts a value into a pub op.
func publishOp(op map[string]any, id string) {
	switch f, value := valueOf(id); f {
	case formData:
		op["data"] = json.RawMessage(value)
	case formText:
		op["text"] = string(value)
	case formB64:
		op["b64"] = base64.StdEncoding.EncodeToString(value)
	}
}

// subjectOf returns the subject of a record, written from the protocol's rule for key bytes.
func subjectOf(topic string, key []byte) string {
	if key == nil {
		return "/" + topic
	}
	segments := strings.Split(string(key), "/")
	for i, s := range segments {
		if s == "*" {
			segments[i] = "%2A"
			continue
		}
		var b strings.Builder
		for len(s) > 0 {
			r, n := utf8.DecodeRuneInString(s)
			if r == utf8.RuneError && n == 1 || r == '%' || unicode.IsControl(r) {
				for _, c := range []byte(s[:n]) {
					fmt.Fprintf(&b, "%%%02X", c)
				}
			} else {
				b.WriteString(s[:n])
			}
			s = s[n:]
		}
		segments[i] = b.String()
	}
	return "/" + topic + "/" + strings.Join(segments, "/")
}
