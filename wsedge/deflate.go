package wsedge

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// Compression of messages (permessage-deflate, RFC 7692) without context takeover: what a message is
// compressed to does not depend on what this client got before, so one result serves all who asked for
// compression. With a context each connection would need a window of 32 KB and a compressor's run for each
// message. Only frames of the cache are compressed, the first time one is sent to such a client; answers and
// what is replayed from Kafka go out as they are, which the extension allows for any message.

const (
	// minDeflate is the shortest payload that is worth it.
	minDeflate = 256
	// deflateParts is how many locks the compressed frames are spread over.
	deflateParts = 16
	// deflateOverhead is what a kept frame costs beside its bytes.
	deflateOverhead = 160
	// rsv1 marks a compressed message (RFC 7692, section 6).
	rsv1 = 0x40
)

// deflated keeps the compressed frames that were asked for last, up to a number of bytes. Any goroutine may
// use it.
type deflated struct {
	budget int // of each part
	parts  [deflateParts]deflatedPart

	frames atomic.Int64 // compressed so far
	before atomic.Int64 // their bytes
	after  atomic.Int64
}

type deflatedPart struct {
	mu     sync.Mutex
	kept   map[deflatedKey]*deflatedFrame // those being compressed, too
	oldest *deflatedFrame
	newest *deflatedFrame
	bytes  int
}

// A record is named by its log and position: an index of the log may mean another record after a reset.
type deflatedKey struct {
	log *cache.Log
	pos bridge.Position
}

type deflatedFrame struct {
	key   deflatedKey
	next  *deflatedFrame
	once  sync.Once
	frame []byte // nil: it would not be shorter
}

func newDeflated(budget int) *deflated {
	d := &deflated{budget: budget / deflateParts}
	for i := range d.parts {
		d.parts[i].kept = make(map[deflatedKey]*deflatedFrame)
	}
	return d
}

// frame returns the compressed frame of a record, or plain itself where that is not longer. Whoever asks first
// compresses; others who ask meanwhile wait for that rather than do it again.
func (d *deflated) frame(key deflatedKey, plain []byte) []byte {
	p := &d.parts[uint64(key.pos.Seqno)%deflateParts]
	p.mu.Lock()
	f := p.kept[key]
	if f == nil {
		f = &deflatedFrame{key: key}
		p.kept[key] = f
	}
	p.mu.Unlock()
	f.once.Do(func() {
		f.frame = deflateFrame(plain)
		d.frames.Add(1)
		d.before.Add(int64(len(plain)))
		if f.frame != nil {
			d.after.Add(int64(len(f.frame)))
		} else {
			d.after.Add(int64(len(plain)))
		}
		p.add(f, d.budget)
	})
	if f.frame == nil {
		return plain
	}
	return f.frame
}

// add keeps a frame, and lets go of the oldest while there are too many.
func (p *deflatedPart) add(f *deflatedFrame, budget int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest == nil {
		p.oldest = f
	} else {
		p.newest.next = f
	}
	p.newest = f
	p.bytes += f.size()
	for p.bytes > budget && p.oldest != nil {
		o := p.oldest
		if p.oldest = o.next; p.oldest == nil {
			p.newest = nil
		}
		delete(p.kept, o.key)
		p.bytes -= o.size()
	}
}

func (f *deflatedFrame) size() int { return deflateOverhead + len(f.frame) }

// A compressor of level 1 holds some hundred KB, so they are shared; there are never more than workers.
var deflaters = sync.Pool{New: func() any {
	d := &deflater{}
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // the level is a valid one
	return d
}}

type deflater struct {
	out bytes.Buffer
	w   *flate.Writer
}

// deflateFrame returns the frame with its message compressed, nil if that would not be shorter.
func deflateFrame(plain []byte) []byte {
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out.Reset()
	d.w.Reset(&d.out)
	if _, err := d.w.Write(payloadOf(plain)); err != nil {
		return nil
	}
	if err := d.w.Flush(); err != nil {
		return nil
	}
	// A flush ends with an empty block, of which the last four bytes are left out (section 7.2.1).
	b := bytes.TrimSuffix(d.out.Bytes(), []byte{0, 0, 0xff, 0xff})
	if len(b)+10 >= len(plain) {
		return nil
	}
	frame, at := beginFrame(make([]byte, 0, len(b)+10))
	frame[at] |= rsv1
	frame = endFrame(append(frame, b...), at)
	if d.out.Cap() > keepScratch {
		d.out = bytes.Buffer{}
	}
	return frame
}

// deflates says whether permessage-deflate was agreed on in a handshake that has this answer.
func deflates(answer http.Header) bool {
	return strings.Contains(answer.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
}

// squeeze returns what of a record goes to a client that asked for compression. Sessions at the head of a log
// ask for the same record one after the other, so the last answer is remembered.
func (f *flusher) squeeze(c *cursor, pos bridge.Position, plain []byte) []byte {
	if len(plain) < minDeflate {
		return plain
	}
	key := deflatedKey{c.log, pos}
	if f.squeezedKey != key {
		f.squeezedKey, f.squeezed = key, f.sh.srv.deflated.frame(key, plain)
	}
	return f.squeezed
}
