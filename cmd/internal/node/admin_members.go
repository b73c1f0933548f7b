package node

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication"
)

// The members of the cluster are shown and changed through the admin port of any node:
//
//	GET  /members          {"members":[…]}
//	POST /members/add      {"node":"n4","addr":"10.0.0.4:7070"}
//	POST /members/remove   {"node":"n2"}
//
// A change takes as long as it takes; the answer is a line of JSON for each thing that happens, the last of
// them {"done":true} or {"error":"…"}. It is broken off when the asker goes, and gone on with when somebody asks
// again. The body must be said to be application/json, which a page in a browser cannot do unasked.

// MembersStatus is the answer to GET /members.
type MembersStatus struct {
	Members []replication.Member `json:"members"`
}

// MembersChange is what is asked for.
type MembersChange struct {
	Node string `json:"node"`
	Addr string `json:"addr,omitempty"` // host:port that the other nodes can dial
}

// MembersEvent is one line of the answer.
type MembersEvent struct {
	Progress string `json:"progress,omitempty"`
	Error    string `json:"error,omitempty"`
	Done     bool   `json:"done,omitempty"`
}

// maxMembersChange bounds what is read of a request.
const maxMembersChange = 4096

func (n *Node) membersRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /members", func(w http.ResponseWriter, r *http.Request) {
		if !n.isUp() {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		writeJSON(w, MembersStatus{Members: n.replication.Members(r.Context())})
	})
	mux.Handle("POST /members/add", n.membersChange(func(ctx context.Context, c MembersChange, tell func(string)) error {
		return n.replication.AddMember(ctx, replication.Peer{ID: bridge.NodeID(c.Node), Addr: c.Addr}, tell)
	}, true))
	mux.Handle("POST /members/remove", n.membersChange(func(ctx context.Context, c MembersChange, tell func(string)) error {
		return n.replication.RemoveMember(ctx, bridge.NodeID(c.Node), tell)
	}, false))
}

// membersChange serves one kind of change.
func (n *Node) membersChange(change func(context.Context, MembersChange, func(string)) error, addr bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			http.Error(w, "want a body of application/json", http.StatusUnsupportedMediaType)
			return
		}
		var c MembersChange
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMembersChange)).Decode(&c); err != nil {
			http.Error(w, "want a JSON object: "+err.Error(), http.StatusBadRequest)
			return
		}
		switch {
		case !nodeName.MatchString(c.Node):
			http.Error(w, fmt.Sprintf("node %q: want 1 to 63 letters, digits, dots, dashes or underscores", c.Node), http.StatusBadRequest)
			return
		case addr && !dialable(c.Addr):
			http.Error(w, fmt.Sprintf("addr %q: want host:port that the other nodes can dial", c.Addr), http.StatusBadRequest)
			return
		case !n.isUp():
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc, flush := json.NewEncoder(w), http.NewResponseController(w)
		send := func(e MembersEvent) {
			if enc.Encode(e) == nil { // else the asker has gone, which its context says too
				_ = flush.Flush()
			}
		}
		n.log.Info().Str("path", r.URL.Path).Str("peer", c.Node).Str("addr", c.Addr).Msg("change of members")
		if err := change(r.Context(), c, func(s string) { send(MembersEvent{Progress: s}) }); err != nil {
			n.log.Warn().Err(err).Msg("change of members was not finished")
			send(MembersEvent{Error: err.Error()})
			return
		}
		n.log.Info().Str("path", r.URL.Path).Str("peer", c.Node).Msg("change of members is done")
		send(MembersEvent{Done: true})
	}
}

func (n *Node) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}
