package wsedge

import "net"

// A server that is away stays up and serves no clients: its node has nothing good to tell them for now,
// and other nodes have. It is Drain without the end.

// SetAway sends all clients elsewhere (bye with this reason, then close code 1001, each to come back at a
// time of its own) and refuses new ones with 503 and Retry-After, until SetAway("") takes clients again.
// What Config.HTTP serves is not touched. Any goroutine may call it.
func (srv *Server) SetAway(reason string) {
	srv.mu.Lock()
	changed := srv.away != reason
	srv.away = reason
	var sessions []*session
	if reason != "" && !srv.draining {
		sessions = make([]*session, 0, len(srv.sessions))
		for s := range srv.sessions {
			sessions = append(sessions, s)
		}
	}
	srv.mu.Unlock()
	switch {
	case !changed:
	case reason == "":
		srv.log.Info().Msg("clients are taken again")
	default:
		srv.log.Warn().Str("reason", reason).Int("connections", len(sessions)).Msg("clients are sent elsewhere")
	}
	for _, s := range sessions {
		s.close(1001, reason, reason)
	}
}

// awayFor returns why the server is away, nothing when it is not.
func (srv *Server) awayFor() string {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.away
}

// refuseAway answers a handshake while the server is away, and closes the connection.
func (srv *Server) refuseAway(conn net.Conn, why string) {
	srv.refuseUpgrade(&upgradeWriter{conn: conn}, srv.elsewhere(why))
}
