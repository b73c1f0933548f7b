package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/replication"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
)

// Tokens are revoked through the admin port of a real node, and listed.
func TestRevokeOnARealNode(t *testing.T) {
	c := &nodes{t: t, topic: "chat", running: map[string]*runningNode{}}
	c.auth = &jwtauth.Config{Secret: func() []byte { return make([]byte, 32) }, Claim: "tidewire", MaxLifetime: time.Hour}
	c.brokers = kafkatest.Fake(t, kfake.SeedTopics(1, c.topic)).Brokers()
	self := peer(t, "n1")
	c.start(self, []replication.Peer{self})
	c.ready("n1")
	vars := map[string]string{"TIDECTL_ADMIN": "127.0.0.1:1," + c.running["n1"].node.AdminAddr()}
	// A day begins neither before the command is run nor while it is.
	keep, keptUntil := 48*time.Hour, time.Now().UTC().Add(48*time.Hour)
	if keptUntil.Hour() > 12 {
		keep, keptUntil = 36*time.Hour, keptUntil.Add(-12*time.Hour)
	}
	for _, c := range []struct {
		args []string
		says []string
	}{
		{nil, []string{"REVOKED  ISSUED UP TO"}},
		{[]string{"-subject", "alice\x1b[2J", "-reason", "left"}, []string{`revoked: subject "alice\x1b[2J", committed; kept until 20`}},
		{[]string{"-token-id", "7c1f", "-keep", keep.String()}, []string{`revoked: token "7c1f", committed; kept until ` + keptUntil.Format("2006-01-02T")}},
		{nil, []string{`subject "alice\x1b[2J"  20`, `"left"`, `token "7c1f"`, "any time"}},
		{[]string{"-o", "json"}, []string{`"subject": "alice\u001b[2J"`, `"reason": "left"`, `"node": "n1"`}},
		{[]string{"-o", "json", "-subject", "bob"}, []string{`{"committed":true,"subject":"bob","issued_up_to":1`}},
	} {
		r := startCmd(t, vars, nil, append([]string{"revoke"}, c.args...)...)
		r.wait(t, exitOK)
		for _, s := range c.says {
			if out := r.out.String(); !strings.Contains(out, s) || strings.Contains(out, "\x1b") {
				t.Errorf("%q: want %q in\n%s", c.args, s, out)
			}
		}
	}
}

func TestRevokeRefusals(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if b, _ := io.ReadAll(r.Body); strings.Contains(string(b), "not Tidewire") {
			fmt.Fprintln(w, "{}")
			return
		}
		http.Error(w, "a majority of the nodes must be there", http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	vars := map[string]string{"TIDECTL_ADMIN": srv.URL}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"alice"}, exitUsage, "takes -subject or -token-id"},
		{[]string{"-subject", ""}, exitUsage, "is empty"},
		{[]string{"-token-id="}, exitUsage, "is empty"},
		{[]string{"-subject", "a", "-token-id", "b"}, exitUsage, "not both"},
		{[]string{"-reason", "x"}, exitUsage, "go with"},
		{[]string{"-subject", "a", "-keep", "-1s"}, exitUsage, "negative"},
		{[]string{"-o", "xml"}, exitUsage, "table or json"},
		{[]string{"-admin", ","}, exitUsage, "-admin is empty"},
	} {
		r := startCmd(t, vars, nil, append([]string{"revoke"}, c.args...)...)
		r.wait(t, c.code)
		if !strings.Contains(r.err.String(), c.says) || asked > 0 {
			t.Errorf("%v: asked %d times: %s", c.args, asked, r.err.String())
		}
	}
	for args, says := range map[string]string{"-subject=a": "a majority of the nodes must be there", "-subject=not Tidewire": "does not say that it is committed"} {
		r := startCmd(t, vars, nil, "revoke", args)
		r.wait(t, exitFailed)
		if !strings.Contains(r.err.String(), says) {
			t.Errorf("%s: %s", args, r.err.String())
		}
	}
}
