package wsedge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// TLS on the clients' port. The handshake is the first part of a connection's own goroutine, within HandshakeTimeout
// together with the request that follows it, so it holds up no one else.

// tlsConfig is the configuration of the port, made of the one that was given: the versions and the protocol are ours.
// HTTP/2 is not offered, since /ws and /sse take a connection for themselves.
func tlsConfig(given *tls.Config) *tls.Config {
	if given == nil {
		return nil
	}
	c := given.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if !slices.Contains(c.NextProtos, "http/1.1") {
		c.NextProtos = append([]string{"http/1.1"}, c.NextProtos...)
	}
	return c
}

// shakeTLS carries out the handshake, or closes the connection and returns nil.
func (srv *Server) shakeTLS(sock *clientConn) *tls.Conn {
	conn := tls.Server(sock, srv.tls)
	err := conn.Handshake()
	if err == nil && conn.ConnectionState().NegotiatedProtocol != "" && conn.ConnectionState().NegotiatedProtocol != "http/1.1" {
		// The question of an ACME authority, which the certificate has answered.
		conn.Close()
		return nil
	}
	if err == nil {
		return conn
	}
	reason := "handshake"
	var record tls.RecordHeaderError
	switch {
	case isTimeout(err):
		reason = "timeout"
		srv.limited(limitHandshakeTime)
	case errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader):
		reason = "plain_http"
	case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
		reason = "gone"
	}
	srv.metrics.tlsFailed.WithLabelValues(reason).Inc()
	srv.log.Debug().Err(err).Str("remote", sock.RemoteAddr().String()).Msg("TLS handshake failed")
	if reason == "plain_http" {
		refuse(&lingering{Conn: sock.Conn}, http.StatusBadRequest, "this port speaks TLS: use https:// or wss://")
	}
	sock.Close()
	return nil
}

// looksLikeHTTP says whether a connection began with a method of HTTP instead of a record of TLS.
func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "CONNE", "TRACE":
		return true
	}
	return false
}

// lingering is a connection that is given an answer before its request was read. To close a socket with unread bytes
// resets the connection, and the answer is lost with it; so Close reads for a moment what is still coming.
type lingering struct{ net.Conn }

const (
	lingerTime = time.Second
	maxLinger  = 64 << 10
)

func (c *lingering) Close() error {
	if _, sealed := layers(c.Conn); sealed != nil {
		_ = sealed.CloseWrite()
	}
	if tcp := tcpConn(c.Conn); tcp != nil {
		_ = tcp.CloseWrite()
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, bottom(c.Conn), maxLinger)
	return c.Conn.Close()
}
