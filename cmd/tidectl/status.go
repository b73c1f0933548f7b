package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

const statusSynopsis = `status [flags]

Shows the nodes, the Raft groups with their coordinators and terms, and the partitions with coordinator,
epoch, last sequence number and lag, as the first admin address that answers sees them. It fails if none
answers, or if a node of the cluster cannot be reached.

  tidectl status
  tidectl status -o json -admin 10.0.0.5:8081`

// clusterStatus is what GET /status?cluster=true answers.
type clusterStatus struct {
	Nodes       []bridge.NodeStatus `json:"nodes"`
	Unreachable map[string]string   `json:"unreachable,omitempty"` // node -> why
}

// defaultAdmin are the admin ports of the demo's nodes.
const defaultAdmin = "127.0.0.1:8081,127.0.0.1:8181,127.0.0.1:8281"

// maxStatus bounds an answer: some thousands of partitions on some nodes take a few MB.
const maxStatus = 64 << 20

func runStatus(ctx context.Context, args []string, e env) error {
	f := flags("status", statusSynopsis, e)
	admin := f.String("admin", or(e.get("TIDECTL_ADMIN"), defaultAdmin),
		"admin `addresses`, tried in this order (TIDECTL_ADMIN)")
	output := f.String("o", "table", "`form`: table or json")
	timeout := f.Duration("timeout", 10*time.Second, "how long an address may take to answer")
	rest, err := parse(f, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return fmt.Errorf("%w: status takes no argument, not %q", errUsage, rest[0])
	case *output != "table" && *output != "json":
		return fmt.Errorf("%w: -o is table or json, not %q", errUsage, *output)
	case len(list(*admin)) == 0:
		return fmt.Errorf("%w: -admin is empty: name at least one address, as host:port", errUsage)
	}
	transport, err := adminTransport(e, &http.Transport{DisableKeepAlives: true})
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: *timeout, Transport: transport}
	var status *clusterStatus
	var failed []error
	for _, addr := range list(*admin) {
		if status, err = fetchStatus(ctx, client, addr); err == nil {
			break
		}
		failed = append(failed, fmt.Errorf("%s: %w", addr, err))
	}
	if status == nil {
		return fmt.Errorf("no admin address answers: %w", errors.Join(failed...))
	}
	if *output == "json" {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(status)
	} else {
		err = printStatus(e.out, status)
	}
	if err == nil && len(status.Unreachable) > 0 {
		err = fmt.Errorf("not reached: %s", strings.Join(slices.Sorted(maps.Keys(status.Unreachable)), ", "))
	}
	return err
}

func fetchStatus(ctx context.Context, client *http.Client, addr string) (*clusterStatus, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(addr, "/")+"/status?cluster=true", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	var status clusterStatus
	if err := json.Unmarshal(body, &status); err != nil {
		return nil, fmt.Errorf("the answer is not a Tidewire status (is this an admin address?): %w", err)
	}
	return &status, nil
}

// printStatus prints three tables. Of each group and partition it takes the best informed view: its
// coordinator's own, else that with the highest term or position.
func printStatus(w io.Writer, s *clusterStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tCLIENTS AT\tCONNECTIONS\tSUBSCRIPTIONS\tCACHE\tUP\tREADY")
	slices.SortFunc(s.Nodes, func(a, b bridge.NodeStatus) int { return cmp.Compare(a.Node, b.Node) })
	for _, n := range s.Nodes {
		ready := "yes"
		if !n.Ready {
			ready = "no: " + strings.Join(n.NotReady, ", ")
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s of %s\t%s\t%s\n", n.Node, n.Client, n.Connections, n.Subscriptions,
			size(n.Cache.Bytes), size(n.Cache.Budget), time.Duration(n.UptimeSeconds)*time.Second, ready)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Unreachable)) {
		fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\tunreachable: %s\n", id, s.Unreachable[id])
	}

	fmt.Fprintln(t, "\nGROUP\tCOORDINATOR\tTERM\tAPPLIED\tBEHIND")
	for _, g := range groups(s) {
		fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%s\n", g.Group, or(string(g.Leader), "none"), g.Term, g.Applied, behind(s, g))
	}

	fmt.Fprintln(t, "\nTOPIC\tPARTITION\tGROUP\tCOORDINATOR\tEPOCH\tSEQNO\tNEXT OFFSET\tLAG")
	for _, p := range partitions(s) {
		lag := "?"
		if p.Lag >= 0 {
			lag = fmt.Sprint(p.Lag)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%s\n", p.Topic, p.Partition, p.Group, or(string(p.Coordinator), "none"), p.Epoch, p.Seqno, p.Next, lag)
	}
	return t.Flush()
}

func groups(s *clusterStatus) []bridge.GroupStatus {
	best := map[bridge.GroupID]bridge.GroupStatus{}
	for _, n := range s.Nodes {
		for _, g := range n.Groups {
			old, ok := best[g.Group]
			if !ok || g.Term > old.Term || g.Term == old.Term && (g.Leader == n.Node || old.Leader == "") {
				best[g.Group] = g
			}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b bridge.GroupStatus) int { return cmp.Compare(a.Group, b.Group) })
}

// behind names the nodes that have applied less than the one in the table.
func behind(s *clusterStatus, best bridge.GroupStatus) string {
	var out []string
	for _, n := range s.Nodes {
		for _, g := range n.Groups {
			if g.Group == best.Group && g.Applied < best.Applied {
				out = append(out, fmt.Sprintf("%s by %d", n.Node, best.Applied-g.Applied))
			}
		}
	}
	return or(strings.Join(out, ", "), "-")
}

func partitions(s *clusterStatus) []bridge.PartitionStatus {
	best := map[bridge.TopicPartition]bridge.PartitionStatus{}
	for _, n := range s.Nodes {
		for _, p := range n.Partitions {
			tp := bridge.TopicPartition{Topic: p.Topic, Partition: p.Partition}
			old, ok := best[tp]
			newer := p.Epoch > old.Epoch || p.Epoch == old.Epoch && p.Seqno > old.Seqno
			if !ok || p.Lag >= 0 && (old.Lag < 0 || newer) || old.Lag < 0 && newer {
				best[tp] = p
			}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b bridge.PartitionStatus) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// size is bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
