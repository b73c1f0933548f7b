package wsedge

import "context"

// Drain ends the service in good order: nobody is let in any more, every client is told to go elsewhere
// (bye, then close code 1001), each to come back at a time of its own, and HTTP requests are let finish.
// It returns when all have gone, or with ctx's error. Close must follow.
func (srv *Server) Drain(ctx context.Context) error {
	srv.mu.Lock()
	srv.draining = true
	for ln := range srv.listeners {
		ln.Close()
	}
	sessions := make([]*session, 0, len(srv.sessions))
	for s := range srv.sessions {
		sessions = append(sessions, s)
	}
	srv.noteLeft()
	srv.mu.Unlock()
	srv.log.Info().Int("connections", len(sessions)).Msg("draining")
	for _, s := range sessions {
		s.close(1001, "draining", "draining")
	}
	err := srv.httpd.Shutdown(ctx)
	select {
	case <-srv.left:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends everything at once and waits for all goroutines. It may be called more than once.
func (srv *Server) Close() error {
	srv.mu.Lock()
	srv.closed = true
	srv.cancel()
	conns := srv.gate.inHandshake()
	for ln := range srv.listeners {
		ln.Close()
	}
	sessions := make([]*session, 0, len(srv.sessions))
	for s := range srv.sessions {
		sessions = append(sessions, s)
	}
	srv.mu.Unlock()
	for _, c := range conns {
		cut(c)
	}
	for _, s := range sessions {
		s.mu.Lock()
		s.abort()
		s.mu.Unlock()
	}
	_ = srv.httpIn.Close()
	err := srv.httpd.Close()
	srv.wg.Wait()
	return err
}
