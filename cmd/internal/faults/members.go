package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
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

// AddMember has node asked take node i into the cluster.
func (c *Nodes) AddMember(ctx context.Context, asked, i int) error {
	addr, err := c.net.Listen(c.list[i].name, clusterPort)
	if err != nil {
		return err
	}
	return c.changeMembers(ctx, asked, "add", map[string]string{"node": c.list[i].name, "addr": addr})
}

// RemoveMember has node asked take node i out of the cluster. It is not among the peers of those that are started
// from now on.
func (c *Nodes) RemoveMember(ctx context.Context, asked, i int) error {
	c.leave(i)
	if err := c.changeMembers(ctx, asked, "remove", map[string]string{"node": c.list[i].name}); err != nil {
		return err
	}
	c.list[i].gone = true
	return nil
}

// changeMembers is what tidectl members does.
func (c *Nodes) changeMembers(ctx context.Context, asked int, what string, change map[string]string) error {
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
			Error string
			Done  bool
		}
		switch err := lines.Decode(&e); {
		case err != nil:
			return fmt.Errorf("members %s %s: %w", what, change["node"], err)
		case e.Error != "":
			return errors.New(e.Error)
		case e.Done:
			return nil
		}
	}
}
