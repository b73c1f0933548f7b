package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication"
)

// adminHandler serves the operators' port.
func (n *Node) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if wantsPage(r) {
			http.Redirect(w, r, "/console/", http.StatusSeeOther)
			return
		}
		fmt.Fprintf(w, "tidewire %s, node %s\n\n/console/  the cluster, its rates and sessions, to look at in a browser\n/healthz   the process lives\n/readyz    it can serve\n/status    what it knows (?cluster=true: all nodes)\n/sessions  its clients, the furthest behind first\n/members   who belongs to the cluster\n/metrics   for Prometheus\n/debug/pprof/  profiles, for go tool pprof\n/admin/revocations  tokens that were taken back\n", Version(), n.cfg.NodeID)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	guard := newGuard(&n.cfg.Admin)
	mux.HandleFunc("POST /console/login", guard.login)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if why := n.notReady(); len(why) > 0 {
			if !guard.shown(r) {
				http.Error(w, "not ready", http.StatusServiceUnavailable) // why names nodes and groups
				return
			}
			http.Error(w, "not ready: "+strings.Join(why, "; "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cluster") == "true" {
			writeJSON(w, n.ClusterStatus(r.Context()))
			return
		}
		writeJSON(w, n.Status())
	})
	n.membersRoutes(mux)
	n.revokeRoutes(mux)
	n.consoleRoutes(mux)
	n.profileRoutes(mux)
	return n.ownNamesOnly(guard.protect(mux))
}

// warner makes a warning of each line that the HTTP server logs: handshakes that failed, handlers that panicked. Without it
// they would be lines of plain text among those of JSON.
type warner struct{ log zerolog.Logger }

func (w *warner) Write(line []byte) (int, error) {
	w.log.Warn().Msg(strings.TrimSpace(string(line)))
	return len(line), nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client has gone: nobody is left to tell
}

// Status is what this node says of itself.
func (n *Node) Status() bridge.NodeStatus {
	s := bridge.NodeStatus{
		Node:          n.cfg.NodeID,
		Version:       Version(),
		Formats:       replication.Formats(),
		UptimeSeconds: int64(time.Since(n.begun).Seconds()),
		Client:        n.Addr(),
		NotReady:      n.notReady(),
	}
	s.Ready = len(s.NotReady) == 0
	edge, store := n.edge.Stats(), n.store.Stats()
	s.Connections, s.Subscriptions, s.Blocked, s.Away = edge.Connections, edge.Subscriptions, edge.Blocked, edge.Away
	s.Counters = &bridge.Counters{
		Records: n.metrics.records.Load(), RecordBytes: n.metrics.recordBytes.Load(),
		Delivered: edge.Delivered, DeliveredBytes: edge.Bytes, Publishes: edge.Acked, NotPublished: edge.NotAcked,
		SlowCloses: edge.SlowCloses,
	}
	s.Cache = bridge.CacheStatus{Bytes: store.Bytes, Budget: store.Budget, Records: store.Records}
	if n.isUp() {
		s.Groups = n.replication.Groups()
		s.ClusterPort = n.replication.Protection()
		s.Partitions = n.bridge.PartitionStatuses()
	}
	return s
}

// A ClusterStatus holds every node's own status, and why those that are missing are.
type ClusterStatus struct {
	Nodes       []bridge.NodeStatus      `json:"nodes"`
	Unreachable map[bridge.NodeID]string `json:"unreachable,omitempty"`
}

// peerStatusTimeout bounds the question to each other node.
const peerStatusTimeout = 2 * time.Second

// ClusterStatus asks all members, by name, and this node, which may be none.
func (n *Node) ClusterStatus(ctx context.Context) ClusterStatus {
	if !n.isUp() {
		return ClusterStatus{Nodes: []bridge.NodeStatus{n.Status()}}
	}
	members := n.replication.MemberIDs()
	if !slices.Contains(members, n.cfg.NodeID) {
		members = append(members, n.cfg.NodeID)
	}
	ctx, cancel := context.WithTimeout(ctx, peerStatusTimeout)
	defer cancel()
	nodes := make([]bridge.NodeStatus, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, id := range members {
		wg.Go(func() {
			if id == n.cfg.NodeID {
				nodes[i] = n.Status()
				return
			}
			nodes[i], errs[i] = n.replication.Status(ctx, id)
		})
	}
	wg.Wait()
	out := ClusterStatus{}
	for i, id := range members {
		if errs[i] == nil {
			out.Nodes = append(out.Nodes, nodes[i])
			continue
		}
		if out.Unreachable == nil {
			out.Unreachable = make(map[bridge.NodeID]string)
		}
		out.Unreachable[id] = errs[i].Error()
	}
	return out
}

// peerService answers what other nodes ask of this one.
type peerService Node

// Publish writes a record to a partition that this node coordinates.
func (s *peerService) Publish(ctx context.Context, tp bridge.TopicPartition, req bridge.PublishRequest) (bridge.PublishResult, error) {
	return s.bridge.LocalPublish(ctx, tp, req)
}

// Head tells the head of a partition that this node coordinates.
func (s *peerService) Head(ctx context.Context, tp bridge.TopicPartition) (bridge.Position, error) {
	return s.bridge.LocalHead(ctx, tp)
}

// Revoke revokes tokens, as the leader of group 0.
func (s *peerService) Revoke(ctx context.Context, r bridge.Revocation) error {
	return s.bridge.LocalRevoke(ctx, r)
}

// Status tells what this node says of itself.
func (s *peerService) Status(context.Context) (bridge.NodeStatus, error) {
	return (*Node)(s).Status(), nil
}
