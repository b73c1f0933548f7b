package wsedge

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

const (
	historyLimit    = 100    // records, when the client does not say
	maxHistoryLimit = 10_000 // records
	// historyStep is how many bytes of frames are looked at in a partition at a time. They are not copied.
	historyStep = 32 << 10
	// historyBuffer is how much of an answer is put together before it is written.
	historyBuffer = 16 << 10
	// historyStall is how long a client may take for that much.
	historyStall = 30 * time.Second
	// maxCompressing bounds how many answers are compressed at a time: a compressor costs 800 KB, for as
	// long as its client takes. Who finds none free gets the answer as it is, which is always allowed.
	maxCompressing = 16
)

// historyHTTP carries out GET /history/topic/key: the newest records of the cache, oldest first. The answer
// is one look at the end of each partition, so that a subscription with the vector in Tidewire-Vector goes on
// where it ends. It is written as it is read, from where the records lie.
func (srv *Server) historyHTTP(w http.ResponseWriter, r *http.Request, raw string) {
	h, err := srv.openHistory(r, raw)
	if err != nil {
		var oe *OpError
		errors.As(err, &oe)
		srv.answerError(w, oe)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Tidewire-Vector", string(appendVector(nil, h.vector)))
	head.Add("Vary", "Accept-Encoding")
	out := &historyWriter{w: w, rc: http.NewResponseController(w), ended: func() bool { return srv.invalid(h.by) != nil }}
	if wantsGzip(r.Header) && srv.beginCompressing() {
		defer srv.endCompressing()
		head.Set("Content-Encoding", "gzip")
		z := compressors.Get().(*gzip.Writer)
		defer compressors.Put(z)
		z.Reset(w)
		defer z.Reset(io.Discard)
		out.z = z
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if err := h.writeTo(out); err != nil {
		// What has been written cannot be taken back: the client sees an answer without an end.
		srv.log.Debug().Err(err).Msg("history broken off")
		panic(http.ErrAbortHandler)
	}
}

// pastRecords is one look at the newest records of a subject.
type pastRecords struct {
	subject Subject
	limit   int
	by      *auth.Identity // for whom
	reels   []*reel
	vector  Vector
}

func (srv *Server) openHistory(r *http.Request, raw string) (*pastRecords, error) {
	if why := srv.awayFor(); why != "" {
		return nil, srv.elsewhere(why)
	}
	id, oe := srv.identifyRequest(r)
	if oe != nil {
		return nil, oe
	}
	subject, text, err := pathSubject(raw)
	if err != nil {
		return nil, err
	}
	if !srv.mayRead(id, subject) {
		return nil, forbid(id, toRead)
	}
	if _, oe := srv.ask(r.Context(), id, "", auth.ActionSub, text); oe != nil {
		return nil, oe
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query cannot be read")
	}
	limit := uint64(historyLimit)
	if q.Has("limit") {
		var ok bool
		if limit, ok = number([]byte(q.Get("limit")), maxHistoryLimit); !ok || len(q["limit"]) > 1 {
			return nil, badRequest("limit is a number of records from 0 to " + strconv.Itoa(maxHistoryLimit))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), srv.cfg.ReadyTimeout)
	defer cancel()
	view, oe := srv.readyTopic(ctx, subject.Topic)
	if oe != nil {
		return nil, oe
	}
	h := &pastRecords{subject: subject, limit: int(limit), by: id}
	var starts []start
	var fresh []int
	for _, p := range partitionsOf(&Op{Subject: subject}, view) {
		log := srv.cfg.Cache.Log(subject.Topic, p)
		b := log.Bounds()
		starts = append(starts, start{partition: p, log: log, until: &b})
		fresh = append(fresh, len(fresh))
		h.vector = append(h.vector, PartitionPosition{p, b.Head})
	}
	sortVector(h.vector)
	addHistory(starts, fresh, &h.subject, h.limit)
	for i := range starts {
		st := &starts[i]
		switch st.from {
		case fromBase:
			st.place = st.until.Start
		case fromHistory:
		default:
			continue // none of its records is among the newest
		}
		h.reels = append(h.reels, &reel{log: st.log, place: st.place, end: st.until.End})
	}
	return h, nil
}

// reel is the part of a history that lies in one partition.
type reel struct {
	log        *cache.Log
	place, end cache.Index
	items      []cache.Item // read and not written yet
	store      []cache.Item // what items is a part of
	begun      bool
}

var errHole = errors.New("records have left the cache while they were being written")

// fill reads on when nothing that was read is left, and says whether there is a record.
func (l *reel) fill(subject *Subject) (bool, error) {
	for len(l.items) == 0 && l.place < l.end {
		var next cache.Index
		var behind bool
		clear(l.store)
		l.store = l.store[:0]
		switch subject.Kind {
		case TopicPattern:
			ch := l.log.ReadAll(l.place, historyStep)
			next, behind = ch.Next, ch.Behind
			for k := range ch.Count() {
				l.store = append(l.store, ch.Item(k))
			}
		case PrefixPattern:
			r := l.log.ReadPrefix(l.place, subject.Key, historyStep, l.store)
			l.store, next, behind = r.Items, r.Next, r.Behind
		default:
			r := l.log.ReadKey(l.place, subject.Key, historyStep, l.store)
			l.store, next, behind = r.Items, r.Next, r.Behind
		}
		if behind {
			// What has not been begun may begin later; a hole in the midst must not be passed over.
			if l.begun {
				return false, errHole
			}
			l.place = max(l.place, l.log.Bounds().Start)
			continue
		}
		l.items, l.place = l.store, next
		for n := len(l.items); n > 0 && l.items[n-1].Index >= l.end; n-- {
			l.items = l.items[:n-1]
		}
	}
	return len(l.items) > 0, nil
}

// writeTo writes the records: the partitions are merged by timestamp, each in its own order.
func (h *pastRecords) writeTo(out *historyWriter) error {
	out.buf = append(out.buf, '[')
	for n := 0; n < h.limit; n++ {
		var first *reel
		for i := 0; i < len(h.reels); {
			l := h.reels[i]
			some, err := l.fill(&h.subject)
			if err != nil {
				return err
			}
			if !some {
				h.reels = append(h.reels[:i], h.reels[i+1:]...)
				continue
			}
			if first == nil || l.items[0].Timestamp < first.items[0].Timestamp {
				first = l
			}
			i++
		}
		if first == nil {
			break
		}
		if n > 0 {
			out.buf = append(out.buf, ',', '\n')
		}
		if err := out.write(payloadOf(first.items[0].Frame)); err != nil {
			return err
		}
		first.items, first.begun = first.items[1:], true
	}
	out.buf = append(out.buf, ']', '\n')
	if err := out.flush(); err != nil {
		return err
	}
	if out.z != nil {
		return out.z.Close()
	}
	return nil
}

// historyWriter gathers small pieces and gives the client time for each large one.
type historyWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	z     *gzip.Writer
	ended func() bool // says that the client may have no more of it; nil: never
	buf   []byte
}

var errEnded = errors.New("the token has ended")

func (o *historyWriter) write(p []byte) error {
	if len(o.buf)+len(p) > historyBuffer {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if len(p) > historyBuffer {
		return o.send(p)
	}
	o.buf = append(o.buf, p...)
	return nil
}

func (o *historyWriter) flush() error {
	err := o.send(o.buf)
	o.buf = o.buf[:0]
	return err
}

func (o *historyWriter) send(p []byte) error {
	to := io.Writer(o.w)
	if o.z != nil {
		to = o.z
	}
	for len(p) > 0 {
		n := min(len(p), 64<<10)
		if o.ended != nil && o.ended() {
			return errEnded
		}
		_ = o.rc.SetWriteDeadline(time.Now().Add(historyStall))
		if _, err := to.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

var compressors = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed); return z }}

func (srv *Server) beginCompressing() bool {
	if srv.compressing.Add(1) > maxCompressing {
		srv.compressing.Add(-1)
		return false
	}
	return true
}

func (srv *Server) endCompressing() { srv.compressing.Add(-1) }

// wantsGzip reads Accept-Encoding (RFC 9110, section 12.5.3).
func wantsGzip(h http.Header) bool {
	any, gzip := false, -1
	for _, list := range h.Values("Accept-Encoding") {
		for entry := range strings.SplitSeq(list, ",") {
			name, params, _ := strings.Cut(entry, ";")
			yes := true
			if q, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(params, " ", "")), "q="); ok {
				weight, err := strconv.ParseFloat(q, 64)
				yes = err == nil && weight > 0
			}
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				gzip = 0
				if yes {
					gzip = 1
				}
			case "*":
				any = yes
			}
		}
	}
	return gzip == 1 || gzip < 0 && any
}
