package main

import (
	"cmp"
	"embed"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tidewire/tidewire/bridge"
)

//go:embed page
var page embed.FS

// web serves the page and what it asks of the demo (not of Tidewire): /demo/config, /demo/status,
// and POST /demo/stop and /demo/start with ?node=n1.
type web struct{ nodes *nodes }

func newWeb(ns *nodes) http.Handler {
	w := &web{nodes: ns}
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /demo/config", w.config)
	mux.HandleFunc("GET /demo/status", w.status)
	mux.HandleFunc("POST /demo/stop", w.control(func(n *demoNode) error { n.stop(); return nil }))
	mux.HandleFunc("POST /demo/start", w.control((*demoNode).start))
	mux.HandleFunc("GET /ws", func(rw http.ResponseWriter, _ *http.Request) { // only a stand-in is asked
		http.Error(rw, "this node is stopped", http.StatusServiceUnavailable)
	})
	return w.guard(mux)
}

// guard answers only to the demo's own names, so that no other site's name can be pointed at it, and
// keeps the page to itself.
func (w *web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.nodes.cfg.ownHost(r.Host) {
			http.Error(rw, "this demo does not answer to the name "+strconv.Quote(r.Host), http.StatusForbidden)
			return
		}
		h := rw.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; connect-src 'self' ws:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(rw, r)
	})
}

// control does something to the node that ?node= names. Only the demo's own page may ask.
func (w *web) control(do func(*demoNode) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if !slices.Contains(w.nodes.cfg.origins(), r.Header.Get("Origin")) && !w.anyAddress(r) {
			http.Error(rw, "only the demo's own page may do that", http.StatusForbidden)
			return
		}
		id := r.URL.Query().Get("node")
		for _, n := range w.nodes.all {
			if n.id != id {
				continue
			}
			if err := do(n); err != nil {
				http.Error(rw, err.Error(), http.StatusConflict)
				return
			}
			rw.WriteHeader(http.StatusAccepted)
			return
		}
		http.Error(rw, "there is no node "+strconv.Quote(id), http.StatusNotFound)
	}
}

// anyAddress says whether the demo listens on every address and the request comes from a page that it
// served itself.
func (w *web) anyAddress(r *http.Request) bool {
	return w.nodes.cfg.everywhere() && r.Header.Get("Origin") == "http://"+r.Host
}

func (c *config) everywhere() bool {
	ip := net.ParseIP(c.host)
	return ip != nil && ip.IsUnspecified()
}

// ownHost says whether a request's Host names this demo: where it listens, or this machine.
func (c *config) ownHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || !slices.Contains(c.clientPorts, n) {
		return false
	}
	return slices.Contains(c.names(), name) || c.everywhere() && net.ParseIP(name) != nil
}

func (c *config) names() []string { return []string{c.shownHost(), "127.0.0.1", "localhost", "::1"} }

// origins are those of the page, for the nodes to let it connect. A demo on every address is open.
func (c *config) origins() []string {
	var out []string
	if c.everywhere() {
		out = append(out, "*")
	}
	for _, port := range c.clientPorts {
		for _, name := range c.names() {
			if !strings.Contains(name, ":") { // a bracket would be a pattern to the nodes
				out = append(out, "http://"+name+":"+strconv.Itoa(port))
			}
		}
	}
	return out
}

type nodeView struct {
	ID            string `json:"id"`
	Port          int    `json:"port"`
	State         string `json:"state"`
	Ready         bool   `json:"ready"`
	Connections   int64  `json:"connections"`
	Subscriptions int64  `json:"subscriptions"`
}

func (w *web) config(rw http.ResponseWriter, _ *http.Request) {
	var out []nodeView
	for _, n := range w.nodes.all {
		out = append(out, nodeView{ID: n.id, Port: w.nodes.cfg.clientPorts[n.index]})
	}
	reply(rw, map[string]any{"nodes": out})
}

// statusView is /demo/status: of groups and partitions the view of the best informed node.
type statusView struct {
	Nodes      []nodeView               `json:"nodes"`
	Groups     []bridge.GroupStatus     `json:"groups"`
	Partitions []bridge.PartitionStatus `json:"partitions"`
}

func (w *web) status(rw http.ResponseWriter, _ *http.Request) {
	var all []*bridge.NodeStatus
	out := statusView{Groups: []bridge.GroupStatus{}, Partitions: []bridge.PartitionStatus{}}
	for _, n := range w.nodes.all {
		state, s := n.view()
		v := nodeView{ID: n.id, Port: w.nodes.cfg.clientPorts[n.index], State: state}
		if s != nil {
			v.Ready, v.Connections, v.Subscriptions = s.Ready, s.Connections, s.Subscriptions
			all = append(all, s)
		}
		out.Nodes = append(out.Nodes, v)
	}
	out.merge(all)
	reply(rw, out)
}

// merge takes of each group the highest term, and of each partition the highest position.
func (v *statusView) merge(all []*bridge.NodeStatus) {
	groups := map[bridge.GroupID]int{}
	partitions := map[bridge.TopicPartition]int{}
	for _, s := range all {
		for _, g := range s.Groups {
			i, ok := groups[g.Group]
			if !ok {
				groups[g.Group] = len(v.Groups)
				v.Groups = append(v.Groups, g)
			} else if old := v.Groups[i]; g.Term > old.Term || g.Term == old.Term && old.Leader == "" {
				v.Groups[i] = g
			}
		}
		for _, p := range s.Partitions {
			tp := bridge.TopicPartition{Topic: p.Topic, Partition: p.Partition}
			i, ok := partitions[tp]
			if !ok {
				partitions[tp] = len(v.Partitions)
				v.Partitions = append(v.Partitions, p)
			} else if old := v.Partitions[i]; p.Epoch > old.Epoch || p.Epoch == old.Epoch && p.Seqno > old.Seqno {
				v.Partitions[i] = p
			}
		}
	}
	slices.SortFunc(v.Groups, func(a, b bridge.GroupStatus) int { return cmp.Compare(a.Group, b.Group) })
	slices.SortFunc(v.Partitions, func(a, b bridge.PartitionStatus) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

func reply(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(v) // the browser has gone: nobody is left to tell
}
