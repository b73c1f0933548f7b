package wsedge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Subprotocol names this version of the protocol in the handshake. A client that names none gets it too.
const Subprotocol = "tidewire.v1.json"

var headReaders = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// shake answers a handshake that came through our own accept loop. ahead is what the client has sent
// after it.
func (srv *Server) shake(conn net.Conn, head, ahead []byte) {
	r := headReaders.Get().(*bufio.Reader)
	r.Reset(bytes.NewReader(head))
	req, err := http.ReadRequest(r)
	r.Reset(nil)
	headReaders.Put(r) // head ends with the headers: a body would be refused without being read
	if err != nil {
		refuse(conn, http.StatusBadRequest, "the request is not HTTP/1.1")
		return
	}
	req.RemoteAddr = conn.RemoteAddr().String()
	if req.URL.EscapedPath() == pathSSE {
		srv.openStream(conn, req, nil)
		return
	}
	srv.upgrade(conn, req, bytes.Clone(ahead))
}

// upgrade makes a session of a connection, which runs on its own, or refuses and closes it.
func (srv *Server) upgrade(conn net.Conn, req *http.Request, ahead []byte) {
	if req.ContentLength != 0 || len(req.TransferEncoding) > 0 {
		refuse(conn, http.StatusBadRequest, "a WebSocket handshake has no body")
		return
	}
	if why := srv.awayFor(); why != "" {
		srv.refuseAway(conn, why)
		return
	}
	id, oe := srv.identifyRequest(req)
	if oe != nil {
		srv.refuseUpgrade(&upgradeWriter{conn: conn}, oe)
		return
	}
	addr, counted, oe := srv.enterRequest(req)
	if oe != nil {
		srv.refuseUpgrade(&upgradeWriter{conn: conn}, oe)
		return
	}
	s := newSession(srv, conn)
	s.addr, s.counted = addr, counted
	s.admit(id)
	w := &upgradeWriter{conn: conn, to: &wsConn{Conn: conn, s: s, ahead: ahead}}
	// The request's context never ends on its own, and costs nothing.
	ws, err := websocket.Accept(w, req, srv.acceptOptions(s))
	if err != nil {
		srv.log.Debug().Err(err).Str("remote", req.RemoteAddr).Msg("handshake refused")
		s.leave() // first: who has the answer finds the place free
		w.finish()
		conn.Close()
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		_ = ws.CloseNow()
		s.leave()
		return
	}
	s.deflate = deflates(w.Header())
	ws.SetReadLimit(srv.cfg.MaxFrameBytes + 1) // a margin: the limit itself is ours, see readMessage
	s.ws, s.wire = ws, w.to
	s.greet()
	s.ownSocket()
	if !srv.register(s) {
		conn.Close()
		_ = ws.CloseNow()
		s.leave()
		return
	}
	// A goroutine of its own: the handshake has grown this one's stack to twice what reading needs. The
	// caller is waited for, so the server is not past waiting.
	srv.wg.Go(s.run)
}

func (srv *Server) acceptOptions(s *session) *websocket.AcceptOptions {
	opts := &websocket.AcceptOptions{
		Subprotocols:   []string{Subprotocol},
		OnPongReceived: func(context.Context, []byte) { s.lastPong.Store(time.Now().UnixMilli()) },
	}
	if srv.cfg.Compression {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	if slices.Contains(srv.cfg.AllowedOrigins, "*") {
		opts.InsecureSkipVerify = true
	} else {
		opts.OriginPatterns = srv.cfg.AllowedOrigins
	}
	return opts
}

// upgradeWriter is the http.ResponseWriter of a handshake. It keeps the answer until Hijack or finish.
type upgradeWriter struct {
	conn   net.Conn
	to     *wsConn
	header http.Header
	status int
	body   []byte
	taken  bool
}

func (w *upgradeWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

func (w *upgradeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *upgradeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// Hijack sends the answer and gives the connection away, with buffers as small as the library can do
// with: 128 bytes hold any control frame, so that each is one call of Write (see wsConn), and 256
// bytes of reading ahead are enough for a frame header and a short op.
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.status != http.StatusSwitchingProtocols {
		return nil, nil, errors.New("hijacked without an upgrade")
	}
	w.taken = true
	if err := w.send(); err != nil {
		return nil, nil, err
	}
	w.to.buf = bufio.NewReaderSize(w.to, 256)
	return w.to, bufio.NewReadWriter(w.to.buf, bufio.NewWriterSize(w.to, 128)), nil
}

// finish sends the answer of a refused handshake. The library's reasons are plain text; they become the
// error object that every refusal is.
func (w *upgradeWriter) finish() {
	if !w.taken && w.status != 0 {
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			e := &OpError{Code: codeBadRequest, Message: strings.TrimSpace(string(w.body))}
			if w.status == http.StatusForbidden {
				e.Code = codeForbidden
			}
			w.body = nil
			writeJSON(w, w.status, payloadOf(appendError(nil, e)))
		}
		w.Header().Set("Connection", "close")
		_ = w.send()
	}
}

func (w *upgradeWriter) send() error {
	resp := http.Response{
		ProtoMajor: 1, ProtoMinor: 1,
		StatusCode: w.status, Header: w.Header(),
	}
	if w.status != http.StatusSwitchingProtocols {
		resp.ContentLength = int64(len(w.body))
		resp.Body = readCloser{bytes.NewReader(w.body)}
		resp.Close = true
	}
	var out bytes.Buffer
	if err := resp.Write(&out); err != nil {
		return err
	}
	_, err := w.conn.Write(out.Bytes())
	return err
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// refuse answers a request that got nowhere near the library, and closes the connection.
func refuse(conn net.Conn, status int, why string) {
	w := &upgradeWriter{conn: conn}
	http.Error(w, why, status)
	w.finish()
	conn.Close()
}

// wsConn is the connection as the library sees it. The library reads from it; what it writes are control
// frames only, each in one call (its buffer holds any of them), and these go to the session's queue, so
// that they never come to stand inside a data frame and the reader never waits for a slow socket.
type wsConn struct {
	net.Conn
	s     *session
	ahead []byte        // what came with the handshake
	buf   *bufio.Reader // the library's, which reads from here
	meter meter
}

// await waits for the first bytes of a frame. The library would wait just as well, but at the bottom of a dozen calls, for
// which a stack of 2 KiB is too small; from here it is large enough, and the runtime takes the rest back. Nearly all
// the time of nearly all connections passes here, and 2 KiB are a sixth of what one costs.
func (c *wsConn) await() {
	if c.s.raw == nil || c.s.tls != nil || len(c.ahead) > 0 || c.buf.Buffered() > 0 {
		return
	}
	if p, ok := c.Conn.(*prefixConn); ok && len(p.prefix) > 0 {
		return
	}
	waitReadable(c.s.raw)
}

func (c *wsConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
		c.slowDown(p[:n])
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.slowDown(p[:n])
	}
	return n, err
}

func (c *wsConn) Write(p []byte) (int, error) {
	c.s.libraryFrame(p)
	return len(p), nil
}

// Close does not close: there may be a close frame in the session's queue. It ends reading; the session
// closes the connection when it has finished.
func (c *wsConn) Close() error { return c.Conn.SetReadDeadline(time.Unix(1, 0)) }

// describe shortens an error of the library for the log.
func describe(err error) string {
	return strings.TrimPrefix(err.Error(), "failed to get reader: ")
}
