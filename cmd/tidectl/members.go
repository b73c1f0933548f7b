package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

const membersSynopsis = `members [list | add NAME=HOST:PORT | remove NAME] [flags]

Shows or changes the nodes that make up the cluster, through the admin port of any of them.

  tidectl members                        who they are
  tidectl members add n4=10.0.0.4:7070   take in a node that is running already, reached there by the others;
                                         a member's name with another address moves it
  tidectl members remove n2              take out a node, dead or alive

A change that is broken off stays half done until it is asked for again, which finishes it. To replace a
dead node, remove it and add the new one, in whichever order; to replace a living one, add first.
See docs/operations.md.`

// member is one of GET /members.
type member struct {
	Node    string `json:"node"`
	Addr    string `json:"addr"`
	Alive   bool   `json:"alive"`
	Votes   int    `json:"votes"`
	Follows int    `json:"follows"`
	Groups  int    `json:"groups"`
	Leads   int    `json:"leads"`
	Version string `json:"version,omitempty"`
}

type membersAnswer struct {
	Members []member `json:"members"`
}

// membersEvent is one line of the answer to a change.
type membersEvent struct {
	Progress string `json:"progress,omitempty"`
	Error    string `json:"error,omitempty"`
	Done     bool   `json:"done,omitempty"`
}

func runMembers(ctx context.Context, args []string, e env) error {
	f := flags("members", membersSynopsis, e)
	admin := f.String("admin", or(e.get("TIDECTL_ADMIN"), defaultAdmin), "admin `addresses`, tried in this order (TIDECTL_ADMIN)")
	output := f.String("o", "table", "`form`: table or json")
	timeout := f.Duration("timeout", 5*time.Minute, "how long a change may take")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		rest = []string{"list"}
	}
	switch {
	case *output != "table" && *output != "json":
		return fmt.Errorf("%w: -o is table or json, not %q", errUsage, *output)
	case len(list(*admin)) == 0:
		return fmt.Errorf("%w: -admin is empty: name at least one address, as host:port", errUsage)
	}
	m := &membersCall{env: e, admin: list(*admin), json: *output == "json", out: e.out, timeout: *timeout}
	switch {
	case rest[0] == "list" && len(rest) == 1:
		return m.list(ctx)
	case rest[0] == "add" && len(rest) == 2:
		node, addr, ok := strings.Cut(rest[1], "=")
		if _, _, err := net.SplitHostPort(addr); !ok || node == "" || err != nil {
			return fmt.Errorf("%w: members add takes NAME=HOST:PORT, not %q", errUsage, rest[1])
		}
		return m.change(ctx, "add", map[string]string{"node": node, "addr": addr})
	case rest[0] == "remove" && len(rest) == 2:
		return m.change(ctx, "remove", map[string]string{"node": rest[1]})
	}
	return fmt.Errorf("%w: members takes list, add NAME=HOST:PORT or remove NAME, not %q", errUsage, strings.Join(rest, " "))
}

// membersCall is a question to whichever admin address answers first.
type membersCall struct {
	env     env
	admin   []string
	json    bool
	out     io.Writer
	timeout time.Duration
}

// connectTimeout is how long an address may take to be reached.
const connectTimeout = 3 * time.Second

// ask sends a request to one address after the other until one takes it; a change that was taken is not sent
// to another.
func (m *membersCall) ask(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport, err := adminTransport(m.env, &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext})
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport}
	var failed []error
	for _, addr := range m.admin {
		if !strings.Contains(addr, "://") {
			addr = "http://" + addr
		}
		req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(addr, "/")+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return resp, nil
		case http.StatusServiceUnavailable, http.StatusNotFound, http.StatusMethodNotAllowed:
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			err = fmt.Errorf("%s: HTTP %s: %s (it is starting, or has no majority, or its build is too old for this)", addr, resp.Status, strings.TrimSpace(string(text)))
		default:
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			_ = resp.Body.Close()
			return nil, fmt.Errorf("%s: HTTP %s: %s", addr, resp.Status, strings.TrimSpace(string(text)))
		}
		_ = resp.Body.Close()
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("no admin address answers: %w", errors.Join(failed...))
}

func (m *membersCall) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := m.ask(ctx, http.MethodGet, "/members", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var a membersAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&a); err != nil {
		return fmt.Errorf("the answer is not a list of members (is this an admin address?): %w", err)
	}
	if m.json {
		enc := json.NewEncoder(m.out)
		enc.SetIndent("", "  ")
		return enc.Encode(a)
	}
	t := tabwriter.NewWriter(m.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tMEMBER\tLEADS\tREACHED\tVERSION")
	for _, n := range a.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", n.Node, n.Addr, n.state(), n.Leads, map[bool]string{true: "yes", false: "no"}[n.Alive], or(n.Version, "-"))
	}
	return t.Flush()
}

func (n member) state() string {
	if n.Votes == n.Groups {
		return "yes"
	}
	return fmt.Sprintf("half: votes in %d, follows in %d of %d groups", n.Votes, n.Follows, n.Groups)
}

func (m *membersCall) change(ctx context.Context, what string, c map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	resp, err := m.ask(ctx, http.MethodPost, "/members/"+what, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var ev membersEvent
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			return fmt.Errorf("the answer is not Tidewire's (is this an admin address?): %w", err)
		}
		if m.json {
			fmt.Fprintln(m.out, lines.Text())
		}
		switch {
		case ev.Error != "":
			return errors.New(ev.Error)
		case ev.Done:
			if !m.json {
				fmt.Fprintln(m.out, m.advice(what, c["node"]))
			}
			return nil
		case !m.json:
			fmt.Fprintln(m.out, ev.Progress)
		}
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the change was broken off: run the same command again to finish it: %w", err)
}

// advice is what is left to do.
func (m *membersCall) advice(what, node string) string {
	if what == "add" {
		return fmt.Sprintf("done: %s is a member. Name it in TIDEWIRE_CLUSTER_PEERS of all nodes, from their next restart on.", node)
	}
	return fmt.Sprintf("done: %s is not a member. Stop it, and leave it out of TIDEWIRE_CLUSTER_PEERS of the others from their next restart on.", node)
}
