package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

// The token is the one that is named the most plainly; a file is read again for the next one.
func TestWhichToken(t *testing.T) {
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	for name, text := range map[string]string{file: "from-file\n", empty: "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	both := map[string]string{"TIDECTL_TOKEN": "ours", "TIDEWIRE_TOKEN": "general"}
	for _, c := range []struct {
		flags clientFlags
		vars  map[string]string
		want  string // empty: wrong usage
	}{
		{clientFlags{token: "flag"}, both, "flag"},
		{clientFlags{tokenFile: file}, both, "from-file"},
		{clientFlags{}, both, "ours"},
		{clientFlags{}, map[string]string{"TIDEWIRE_TOKEN": "general"}, "general"},
		{clientFlags{token: "flag", tokenFile: file}, nil, ""},
		{clientFlags{tokenFile: empty}, both, ""},
		{clientFlags{tokenFile: empty + ".none"}, both, ""},
	} {
		got, err := c.flags.theToken(env{get: func(n string) string { return c.vars[n] }})
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, errUsage) {
			t.Errorf("%+v: %q, %v", c.flags, got, err)
		}
	}
	r := startCmd(t, both, strings.NewReader(""), "sub", "/a", "-token-file", empty)
	r.wait(t, exitUsage)
	if !strings.Contains(r.err.String(), "no token") {
		t.Errorf("err %q", r.err.String())
	}

	cl := &tidewiretest.Cluster{Auth: "required"}
	if err := cl.Start(1); err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cl.Append("/a", 0, 1)
	r = startCmd(t, map[string]string{"TIDECTL_NODES": cl.Addrs()[0]}, nil, "sub", "/a", "-n", "1", "-history", "1", "-token-file", file)
	r.wait(t, exitOK)
	if ops := cl.Ops(); len(ops) == 0 || ops[0].Op != "auth" || ops[0].Token != "from-file" {
		t.Errorf("the client said %+v", ops)
	}
}
