package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// revoke asks a node's admin port to revoke; code 0 when there is no answer.
func (a *aNode) revoke(body string, header ...string) (code int, answer string) {
	req, err := http.NewRequest(http.MethodPost, "http://"+a.node.AdminAddr()+"/admin/revoke", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	client := http.Client{Timeout: waitTime, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// mustRevoke asks until the node knows that it is done: an answer of 503 may come when everything stands still for long.
func (a *aNode) mustRevoke(t *testing.T, body string) {
	t.Helper()
	eventually(t, "the revocation of "+body, func() bool {
		code, answer := a.revoke(body)
		if code != http.StatusOK && code != http.StatusServiceUnavailable {
			t.Fatalf("%s: %d: %s", body, code, answer)
		}
		return code == http.StatusOK
	})
}

// revocations is what a node says is revoked, without the times.
func (a *aNode) revocations(t *testing.T) (names []string) {
	t.Helper()
	code, body := a.ask("/admin/revocations")
	var l RevocationList
	if err := json.Unmarshal([]byte(body), &l); err != nil || code != http.StatusOK || l.Node != a.cfg.NodeID || l.Revocations == nil {
		t.Fatalf("/admin/revocations: %d, %v: %s", code, err, body)
	}
	for _, r := range l.Revocations {
		names = append(names, r.Subject+"|"+r.TokenID)
	}
	return names
}

func TestRevokeIsAskedForProperly(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 1, k.topic(t, 1, nil), withTokens)
	a := c.nodes[0]
	own := "http://" + a.node.AdminAddr()
	for name, r := range map[string]struct {
		body   string
		header []string
		code   int
		says   string
	}{
		"nothing":                 {``, nil, 400, `{"subject":"alice"}`},
		"no object":               {`["alice"]`, nil, 400, "want a JSON object"},
		"nobody":                  {`{}`, nil, 400, "one of them"},
		"both":                    {`{"subject":"a","token_id":"b"}`, nil, 400, "one of them"},
		"a misspelt member":       {`{"subject":"a","expire":1}`, nil, 400, "unknown field"},
		"two objects":             {`{"subject":"a"}{"subject":"b"}`, nil, 400, "something follows"},
		"a subject that is long":  {`{"subject":"` + strings.Repeat("x", 257) + `"}`, nil, 400, "257 bytes"},
		"a reason that is long":   {`{"subject":"a","reason":"` + strings.Repeat("x", 129) + `"}`, nil, 400, "129 bytes"},
		"expired already":         {`{"subject":"a","expires":1700000000000}`, nil, 400, "expires=1700000000000 is over"},
		"a body that is long":     {`{"subject":"a"` + strings.Repeat(" ", maxRevokeBody) + `}`, nil, 413, "8192 bytes"},
		"a form":                  {`{"subject":"a"}`, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		"another site's page":     {`{"subject":"a"}`, []string{"Origin", "https://evil.example"}, 403, "own page"},
		"a sandboxed page":        {`{"subject":"a"}`, []string{"Origin", "null"}, 403, "own page"},
		"another site's name":     {`{"subject":"a"}`, []string{"Host", "evil.example"}, 403, "does not answer to the name"},
		"the console":             {`{"subject":"from the console"}`, []string{"Origin", own}, 200, `"committed": true`},
		"by subject":              {`{"subject":"al\nice","reason":"left"}`, nil, 200, `"subject": "al\nice"`},
		"by id, for a while":      {fmt.Sprintf(`{"token_id":"t1","expires":%d}`, time.Now().Add(time.Hour).UnixMilli()), nil, 200, `"token_id": "t1"`},
		"with a charset, as some": {`{"token_id":"t2"}`, []string{"Content-Type", "application/json; charset=utf-8"}, 200, `"committed": true`},
	} {
		if code, body := a.revoke(r.body, r.header...); code != r.code || !strings.Contains(body, r.says) {
			t.Errorf("%s: %d %q, want %d and %q", name, code, body, r.code, r.says)
		}
	}
	open := startCluster(t, k, 1, k.topic(t, 1, nil), nil)
	if code, body := open.nodes[0].revoke(`{"subject":"a"}`); code != http.StatusConflict || !strings.Contains(body, "TIDEWIRE_AUTH=none") {
		t.Errorf("where there are no tokens: %d %s", code, body)
	}
	if code, _ := a.ask("/admin/revoke"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET /admin/revoke: %d", code)
	}
	if got, want := a.revocations(t), []string{"al\nice|", "from the console|", "|t1", "|t2"}; !slices.Equal(got, want) {
		t.Errorf("revoked are %q, want %q", got, want)
	}
	if _, body := a.ask("/metrics"); !strings.Contains(body, "\ntidewire_revocations 4\n") {
		t.Error("the metric does not say 4")
	}
}

// What is revoked on one node is on all, also on those that were away, whatever leads, and after all were restarted; and
// leaves them all when it has expired.
func TestRevocationsAreOnAllNodes(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 3, k.topic(t, 1, nil), withTokens)
	want := func(when string, nodes []*aNode, names ...string) {
		t.Helper()
		for _, a := range nodes {
			eventually(t, when+", on "+string(a.cfg.NodeID), func() bool { return slices.Equal(a.revocations(t), names) })
		}
	}
	for i, a := range c.nodes { // at least two of them have to forward it
		a.mustRevoke(t, fmt.Sprintf(`{"subject":"user%d"}`, i))
	}
	want("asked of each node", c.nodes, "user0|", "user1|", "user2|")

	c.stop(2)
	c.nodes[0].mustRevoke(t, `{"subject":"user3"}`)
	want("with one node away", c.nodes[:2], "user0|", "user1|", "user2|", "user3|")
	var expires time.Time
	eventually(t, "a revocation that expires", func() bool { // it is over already where all of this stands still for long
		expires = time.Now().Add(12 * time.Second)
		code, _ := c.nodes[0].revoke(fmt.Sprintf(`{"token_id":"t1","expires":%d}`, expires.UnixMilli()))
		return code == http.StatusOK
	})
	for _, a := range c.nodes[:2] {
		eventually(t, "what expires on "+string(a.cfg.NodeID), func() bool { return slices.Contains(a.revocations(t), "|t1") || !time.Now().Before(expires) })
	}
	c.start(2)
	c.waitReady()
	// Ready says that it has caught up: nothing is waited for.
	if got := c.nodes[2].revocations(t); !slices.Contains(got, "user3|") || !slices.Contains(got, "|t1") && time.Now().Before(expires) {
		t.Errorf("a node that is ready has %q", got)
	}

	c.stop(1)
	c.stop(2)
	code, body := c.nodes[0].revoke(`{"subject":"nobody hears it"}`)
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "majority") {
		t.Errorf("without a majority: %d: %s", code, body)
	}
	c.stop(0)
	for i := range c.nodes {
		c.start(i)
	}
	c.waitReady()
	late := `user0| user1| user2| user3|`
	for _, a := range c.nodes {
		eventually(t, "after a restart of all, on "+string(a.cfg.NodeID), func() bool {
			// What was asked for without a majority may have been taken in since, as its answer said.
			got := slices.DeleteFunc(a.revocations(t), func(s string) bool { return s == "nobody hears it|" || s == "|t1" })
			return strings.Join(got, " ") == late
		})
	}
	for _, a := range c.nodes {
		eventually(t, "what has expired to be gone from "+string(a.cfg.NodeID), func() bool { return !slices.Contains(a.revocations(t), "|t1") })
	}
	if time.Now().Before(expires) {
		t.Error("it was gone before it expired")
	}
	if n := c.nodes[1].node.bridge; !n.Revoked(bridge.Token{Subject: "user0"}) || n.Revoked(bridge.Token{Subject: "user4"}) {
		t.Error("another one is revoked than was asked for")
	}
}
