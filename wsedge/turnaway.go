package wsedge

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// This file is what a connection that is let in no more gets to hear. To answer costs more than to refuse, so only so
// many are answered at a time and in a second; the others are closed at once.

const (
	maxTurnedAway = 64
	turnedAwayPer = 200 // a second
	// refusalRetry is when somebody who was refused may try again.
	refusalRetry = 5 * time.Second
)

type turnAway struct {
	now  atomic.Int64
	pace paces[struct{}]
}

func (t *turnAway) begin() bool {
	if t.now.Add(1) > maxTurnedAway || t.pace.take(struct{}{}, time.Now().UnixNano(), 1, turnedAwayPer) > 0 {
		t.now.Add(-1)
		return false
	}
	return true
}

func (t *turnAway) end() { t.now.Add(-1) }

// refusalFor is the error of a limit on connections.
func refusalFor(limit string) *OpError {
	if limit == limitAddress {
		return &OpError{Code: codeLimit, Message: "your address has as many connections to this node as it may: close some", Retry: refusalRetry, status: http.StatusTooManyRequests}
	}
	return &OpError{Code: codeLimit, Message: "this node has as many connections as it may: go to another one", Retry: refusalRetry, status: http.StatusServiceUnavailable}
}

// refuseRequest answers the request of a connection that is let in no more, in the form that it asks for, and closes it.
func (srv *Server) refuseRequest(conn net.Conn, head []byte, ours bool, oe *OpError) {
	w := &upgradeWriter{conn: conn}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if ours && err == nil && req.URL.EscapedPath() == pathSSE {
		srv.refuseStream(w, req, oe)
		srv.metrics.requested(pathSSE, w.status)
	} else {
		srv.answerError(w, oe)
	}
	w.finish()
	_ = (&lingering{Conn: conn}).Close()
}
