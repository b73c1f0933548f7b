package wsedge

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GET /sse. The connection is taken from net/http, or never gets there, for the same reason as with /ws: a
// goroutine with a small stack and no buffers is all that a quiet stream costs. The answer has neither a
// length nor chunks; it ends with the connection (RFC 9112, section 6.3).
//
// It is not compressed, whatever Accept-Encoding says: a compressor keeps tens of kilobytes for each
// connection, which is many times what a stream costs, and every subscriber would need its own bytes.

// openStream answers a request for a stream on a connection that is its own from here on, or refuses it and
// closes the connection.
func (srv *Server) openStream(conn net.Conn, r *http.Request, _ []byte) {
	w := &upgradeWriter{conn: conn}
	refused := func(oe *OpError) {
		srv.refuseStream(w, r, oe)
		srv.metrics.requested(pathSSE, w.status)
		w.finish()
		conn.Close()
	}
	if !srv.admit(w, r, "GET, HEAD") {
		srv.metrics.requested(pathSSE, w.status)
		w.finish()
		conn.Close()
		return
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		refused(&OpError{Code: codeBadRequest, Message: "a request for a stream has no body"})
		return
	}
	id, oe := srv.identifyRequest(r)
	if oe != nil {
		refused(oe)
		return
	}
	ops, err := streamOps(r)
	if err != nil {
		var oe *OpError
		errors.As(err, &oe)
		refused(oe)
		return
	}
	if why := srv.awayFor(); why != "" {
		refused(srv.elsewhere(why))
		return
	}
	addr, counted, oe := srv.enterRequest(r)
	if oe == nil {
		if oe = srv.requestRate(addr); oe != nil && counted {
			srv.gate.leaveAddress(addr)
		}
	}
	if oe != nil {
		refused(oe)
		return
	}
	// What a sub may wait for comes on top of the handshake's own time.
	_ = conn.SetDeadline(time.Now().Add(srv.cfg.HandshakeTimeout + srv.cfg.ReadyTimeout))
	s := newSession(srv, conn)
	s.addr, s.counted = addr, counted
	s.admit(id)
	s.stream = new(stream)
	s.hold()
	asking, cancel := context.WithTimeout(srv.ctx, authTimeout) // for all of them together
	defer cancel()
	for i := range ops {
		oe := s.allowed(asking, &ops[i])
		if oe == nil {
			oe = s.subscribe(&ops[i])
		}
		if oe != nil {
			s.discharge()
			refused(oe)
			return
		}
	}
	s.mu.Lock() // replays may be at work already
	s.rest = streamHead(w.Header(), srv.cfg.DrainSpread)
	s.weigh()
	s.mu.Unlock()
	if err := conn.SetDeadline(time.Time{}); err != nil || !srv.register(s) {
		s.discharge()
		_ = conn.SetDeadline(time.Now().Add(srv.cfg.CloseTimeout))
		refused(srv.elsewhere("draining"))
		return
	}
	s.ownSocket() // not before: a refusal is written on the way that waits
	setUserTimeout(conn, beatsUntilDead*srv.cfg.Heartbeat)
	srv.metrics.requested(pathSSE, http.StatusOK)
	srv.wg.Go(s.run)
}

// discharge gives back all that a session has taken which is refused before it was registered.
func (s *session) discharge() {
	s.mu.Lock()
	s.abort()
	s.mu.Unlock()
	s.leave()
	s.srv.wheel.stop(s.alarm) // nothing sets it from here on
}

// streamHead is what a stream begins with.
func streamHead(h http.Header, spread time.Duration) []byte {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("Connection", "close")
	h.Set("X-Accel-Buffering", "no") // nginx and others would wait for more
	h.Set("X-Content-Type-Options", "nosniff")
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&out)
	out.WriteString("\r\nretry: ")
	out.WriteString(strconv.FormatInt(spreadRetry(spread), 10))
	out.WriteString("\n\n")
	return out.Bytes()
}

// spreadRetry is after how many milliseconds a client comes back.
func spreadRetry(spread time.Duration) int64 {
	return streamRetry.Milliseconds() + rand.Int64N(max(1, spread.Milliseconds()))
}

// elsewhere is the error of a node that serves nobody for now.
func (srv *Server) elsewhere(why string) *OpError {
	return &OpError{Code: codeUnavailable, Message: why + ": go to another node", Retry: max(time.Millisecond, srv.cfg.DrainSpread), reason: why}
}

// refuseStream answers a request that became no stream. An EventSource gives up for good on any status but
// 200, so what passes with time is told to one as a stream that ends at once, with bye, and is tried again.
func (srv *Server) refuseStream(w *upgradeWriter, r *http.Request, oe *OpError) {
	if oe.Retry == 0 || !accepts(r, "text/event-stream") {
		srv.answerError(w, oe)
		return
	}
	srv.metrics.failed(oe.Code)
	reason := oe.reason
	if reason == "" {
		reason = oe.Code
	}
	retry := max(oe.Retry.Milliseconds(), spreadRetry(srv.cfg.DrainSpread))
	bye := payloadOf(appendBye(nil, reason, retry, srv.cfg.Nodes))
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	_, _ = w.Write(append(appendEvent(nil, []byte("bye"), bye, retry), '\n'))
}

func accepts(r *http.Request, typ string) bool {
	return slices.ContainsFunc(r.Header.Values("Accept"), func(v string) bool { return strings.Contains(strings.ToLower(v), typ) })
}

// streamOps reads the subs that a request for a stream stands for.
func streamOps(r *http.Request) ([]Op, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query cannot be read: in it a % of a subject is written %25")
	}
	subjects := q["subject"]
	if len(subjects) == 0 {
		return nil, badRequest("subject is missing: /sse?subject=/topic/key, once for each subject")
	}
	if len(subjects) > maxStreamSubjects {
		return nil, &OpError{Code: codeLimit, Message: "a stream has at most " + strconv.Itoa(maxStreamSubjects) + " subjects: use a pattern, several connections, or WebSocket"}
	}
	one := func(name string) (string, error) {
		if len(q[name]) > 1 {
			return "", badRequest(name + " is there twice: it is for all subjects")
		}
		return q.Get(name), nil
	}
	history, err := one("history")
	if err != nil {
		return nil, err
	}
	conflate, err := one("conflate_ms")
	if err != nil {
		return nil, err
	}
	word, err := one("resume")
	if err != nil {
		return nil, err
	}
	// An EventSource sends the id of the last event that it has got, and the URL it was made with: the
	// header is the newer one.
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		word = last
	}
	var token resumeToken
	if word != "" {
		if token, err = parseToken(word); err != nil {
			return nil, err
		}
	}
	ops := make([]Op, len(subjects))
	for i, text := range subjects {
		op := &ops[i]
		op.Kind, op.Text = OpSub, text
		if op.Subject, err = ParseSubject(text); err != nil {
			return nil, err
		}
		if err := op.setHistory([]byte(history)); err != nil {
			return nil, err
		}
		if err := op.setConflate([]byte(conflate)); err != nil {
			return nil, err
		}
		if v, ok := token[subjectHash(text)]; ok {
			op.Resume, op.Resumed = v, true
		}
	}
	return ops, nil
}
