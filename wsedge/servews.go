package wsedge

import "net/http"

// ServeWS makes a session of a handshake that came to another port of the node, within the same limits as all
// others. The caller has checked the request's Origin: AllowedOrigins are those of the clients' port.
func (srv *Server) ServeWS(w http.ResponseWriter, r *http.Request) { srv.takeOver(w, r, srv.upgrade) }
