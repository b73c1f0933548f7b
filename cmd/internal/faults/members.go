package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// membersTime bounds a change of members; it takes about a second.
const membersTime = 90 * time.Second

// Join starts one more node, which is not a member yet, and returns its number.
func (c *Nodes) Join() (int, error) {
	i := len(c.list)
	name := nodeNames(i + 1)[i]
	c.list = append(c.list, &node{name: name, dir: filepath.Join(c.dir, name), log: filepath.Join(c.dir, name+".log")})
	c.leave(i)
	return i, c.Start(i)
}

// WaitJoinable waits until a node that is not a member says what is to be done about that: then it can be added.
func (c *Nodes) WaitJoinable(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, nodesReady)
	defer cancel()
	want := "run `tidectl members add " + c.list[i].name + "="
	return poll(ctx, func() error {
		s, err := c.Status(ctx, i)
		if err == nil && !slices.ContainsFunc(s.NotReady, func(why string) bool { return strings.Contains(why, want) }) {
			err = fmt.Errorf("%s does not say %q, but %q", c.list[i].name, want, s.NotReady)
		}
		return err
	})
}

// AddMember has node asked take node i into the cluster. Each line of progress is told, unless tell is nil; an error
// is an answer like any other, and is for the caller to judge.
func (c *Nodes) AddMember(ctx context.Context, asked, i int, tell func(progress string)) error {
	addr, err := c.net.Listen(c.list[i].name, clusterPort)
	if err != nil {
		return err
	}
	return c.changeMembers(ctx, asked, "add", map[string]string{"node": c.list[i].name, "addr": addr}, tell)
}

// RemoveMember has node asked take node i out of the cluster. It is not among the peers of those that are started
// from now on.
func (c *Nodes) RemoveMember(ctx context.Context, asked, i int) error {
	c.leave(i)
	if err := c.changeMembers(ctx, asked, "remove", map[string]string{"node": c.list[i].name}, nil); err != nil {
		return err
	}
	c.list[i].gone = true
	return nil
}

// changeMembers is what tidectl members does.
func (c *Nodes) changeMembers(ctx context.Context, asked int, what string, change map[string]string, tell func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, membersTime)
	defer cancel()
	addr, err := c.net.Dial(Driver, c.list[asked].name, adminPort)
	if err != nil {
		return err
	}
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/members/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: c.http.Transport}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("members %s %s: %w", what, change["node"], err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("members %s %s: %s", what, change["node"], resp.Status)
	}
	for lines := json.NewDecoder(resp.Body); ; {
		var e struct {
			Progress, Error string
			Done            bool
		}
		switch err := lines.Decode(&e); {
		case err != nil:
			return fmt.Errorf("members %s %s: %w", what, change["node"], err)
		case e.Error != "":
			return errors.New(e.Error)
		case e.Done:
			return nil
		case tell != nil:
			tell(e.Progress)
		}
	}
}

// Votes returns in how many groups node i votes, and how many groups there are, as node asked knows it.
func (c *Nodes) Votes(ctx context.Context, asked, i int) (votes, groups int, err error) {
	addr, err := c.net.Dial(Driver, c.list[asked].name, adminPort)
	if err != nil {
		return 0, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/members", nil)
	if err != nil {
		return 0, 0, err
	}
	client := http.Client{Transport: c.http.Transport, Timeout: membersTime}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Members []struct {
			Node          string
			Votes, Groups int
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&answer); err != nil {
		return 0, 0, fmt.Errorf("members as %s knows them: %w", c.list[asked].name, err)
	}
	for _, m := range answer.Members {
		groups = m.Groups
		if m.Node == c.list[i].name {
			votes = m.Votes
		}
	}
	return votes, groups, nil
}
