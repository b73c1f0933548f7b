package wsedge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/wsedge/auth"
)

const (
	// recordHeaderPrefix is what the headers begin with that become record headers. HTTP does not tell
	// upper from lower case in the names of headers; in a record they are in lower case.
	recordHeaderPrefix = "tidewire-header-"
	// bodyTimeout is how long the body of a publish may take.
	bodyTimeout = 30 * time.Second
)

// pathSubject returns the subject of a path behind /publish or /history. It is the subject's text, escaped as
// URLs are and no further: unescaped once it is the text. A % of the text is %25 in the path.
func pathSubject(raw string) (Subject, string, error) {
	text, err := url.PathUnescape(raw)
	if err != nil {
		return Subject{}, "", badSubject("the path cannot be read: in it a % of a subject is written %25")
	}
	subject, err := ParseSubject(text)
	return subject, text, err
}

// publishHTTP carries out POST /publish/topic/key.
func (srv *Server) publishHTTP(w http.ResponseWriter, r *http.Request, raw string) {
	op, err := srv.publishOp(w, r, raw)
	if err != nil {
		var oe *OpError
		if !errors.As(err, &oe) {
			// The client is gone, or so slow that it might as well be.
			w.Header().Set("Connection", "close")
			srv.answerErrorAs(w, http.StatusRequestTimeout, &OpError{Code: codeBadRequest, Message: fmt.Sprintf("the body did not come whole within %v", bodyTimeout)})
			return
		}
		if oe.Code == codeTooLarge {
			w.Header().Set("Connection", "close") // the rest of it is not read
		}
		srv.answerError(w, oe)
		readOut(w, r)
		return
	}
	if oe := srv.beginPublish(op); oe != nil {
		srv.answerError(w, oe)
		return
	}
	defer srv.endPublish(op)
	// The body may have taken its time.
	if op.yes.over(srv.now()) {
		if oe := srv.decidedHTTP(r, op); oe != nil {
			srv.answerError(w, oe)
			return
		}
	}
	if oe := srv.invalid(op.by); oe != nil {
		srv.answerError(w, oe)
		return
	}
	// As with WebSocket the publish goes on when its client goes away: it may have been written already.
	ctx, cancel := context.WithTimeout(srv.ctx, publishTimeout)
	defer cancel()
	result, oe := srv.carryOutPublish(ctx, op)
	if oe != nil {
		setRetryAfter(w.Header(), oe.Retry)
		writeJSON(w, statusOf(oe), payloadOf(appendError(nil, oe))) // counted already
		return
	}
	writeJSON(w, http.StatusOK, payloadOf(appendAcked(nil, 0, result)))
}

// decidedHTTP has the Decider decide about a publish.
func (srv *Server) decidedHTTP(r *http.Request, op *Op) (oe *OpError) {
	if op.yes, oe = srv.ask(r.Context(), op.by, "", auth.ActionPub, op.Text); oe != nil {
		srv.metrics.published("refused")
	}
	return oe
}

const (
	readOutTime  = time.Second
	readOutBytes = 8 << 20
)

// readOut takes what a client is still sending of a body that was refused, within bounds. The answer is out by then; but a
// connection that is closed with bytes unread is reset, and a client that is still writing never sees the answer. net/http
// waits before it closes, unless the client asked for the close.
func readOut(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if c.Flush() != nil || c.SetReadDeadline(time.Now().Add(readOutTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, readOutBytes)
}

// publishOp reads the pub that a request stands for. An error that is no *OpError is of the connection.
func (srv *Server) publishOp(w http.ResponseWriter, r *http.Request, raw string) (*Op, error) {
	if why := srv.awayFor(); why != "" {
		return nil, srv.elsewhere(why)
	}
	id, oe := srv.identifyRequest(r)
	if oe != nil {
		return nil, oe
	}
	op := &Op{Kind: OpPub, by: id}
	var err error
	if op.Subject, op.Text, err = pathSubject(raw); err != nil {
		return nil, err
	}
	if op.Subject.IsPattern() {
		return nil, badSubject("a publish goes to one subject: /publish/topic/key, or /publish/topic for a null key")
	}
	if !srv.mayWrite(id, op.Subject) {
		srv.metrics.published("refused")
		return nil, forbid(id, toWrite)
	}
	if oe := srv.userRate(op.user(), addrOf(r)); oe != nil {
		return nil, oe
	}
	if oe := srv.decidedHTTP(r, op); oe != nil {
		return nil, oe
	}
	if view, ok := srv.cfg.Backend.Topic(op.Subject.Topic); !ok || !view.Publish {
		srv.metrics.published("refused")
		return nil, notOpen()
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query cannot be read")
	}
	switch acks := q["ack"]; {
	case len(acks) == 0:
	case len(acks) > 1 || acks[0] != "kafka" && acks[0] != "replicated":
		return nil, badRequest("ack is kafka or replicated")
	case acks[0] == "replicated":
		op.Ack = bridge.AckReplicated
	}
	if mids := r.Header.Values("Idempotency-Key"); len(mids) > 0 {
		if op.Mid = mids[0]; len(mids) > 1 || op.Mid == "" || len(op.Mid) > maxMid || !utf8.ValidString(op.Mid) {
			return nil, badRequest("Idempotency-Key is the mid: 1 to 128 bytes of UTF-8, once")
		}
	}
	if err := op.setHeaders(r.Header); err != nil {
		return nil, err
	}
	if oe := srv.headersFit(op); oe != nil {
		return nil, oe
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, badRequest("the body is the record's value as it is: send it without Content-Encoding")
	}
	return op, srv.readBody(w, r, op)
}

func (op *Op) setHeaders(h http.Header) error {
	for name, values := range h {
		name = strings.ToLower(name)
		key, ok := strings.CutPrefix(name, recordHeaderPrefix)
		if !ok {
			continue
		}
		switch {
		case len(op.Headers) == maxOpHeaders:
			return badRequest("there are more than " + strconv.Itoa(maxOpHeaders) + " record headers")
		case key == "":
			return badRequest("a record header is Tidewire-Header-NAME: the name is missing")
		case len(values) > 1:
			return badRequest("the record header " + key + " is there twice")
		case strings.HasPrefix(key, bridge.HeaderReserved):
			return badRequest("record headers that begin with " + bridge.HeaderReserved + " are Tidewire's own")
		}
		op.Headers = append(op.Headers, bridge.Header{Key: key, Value: append([]byte{}, values[0]...)})
	}
	slices.SortFunc(op.Headers, func(a, b bridge.Header) int { return strings.Compare(a.Key, b.Key) }) // a map has no order of its own
	return nil
}

// readBody makes the body of a request the op's value. An empty body is an empty value; a null value has no
// form here.
func (srv *Server) readBody(w http.ResponseWriter, r *http.Request, op *Op) error {
	limit := srv.cfg.MaxFrameBytes
	tooLarge := &OpError{Code: codeTooLarge, Message: "a value has at most " + strconv.FormatInt(limit, 10) + " bytes (max_frame_bytes)"}
	if r.ContentLength > limit {
		return tooLarge
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	buf := readBuffers.Get().(*[]byte)
	body, err := srv.readMessage(r.Body, (*buf)[:0])
	if err == nil {
		op.Value = append([]byte{}, body...)
	}
	if cap(body) <= keepBuffer {
		*buf = body[:0]
		readBuffers.Put(buf)
	}
	if errors.Is(err, errFrameTooBig) {
		return tooLarge
	}
	if errors.Is(err, errOverloaded) {
		w.Header().Set("Connection", "close") // the rest of it is not read
		return &OpError{Code: codeUnavailable, Message: "the node keeps too much for its clients: it was not written, send it to another one", Retry: refusalRetry}
	}
	return err
}
