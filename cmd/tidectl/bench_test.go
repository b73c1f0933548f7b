package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/cmd/internal/bench"
)

func TestBenchUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"-topic":            {},
		"takes no argument": {"-topic", "t", "x"},
		"-o is text":        {"-topic", "t", "-o", "xml"},
		"processors":        {"-local", "-server-cpus", "a"},
		"NAME=value":        {"-local", "-env", "x"},
		"-ca: open none":    {"-topic", "t", "-ca", "none"},
	} {
		r := startCmd(t, nil, nil, append([]string{"bench"}, args...)...)
		r.wait(t, exitUsage)
		if !strings.Contains(r.err.String(), want) {
			t.Errorf("%q: %s", args, r.err.String())
		}
	}
	if runtime.GOOS != "linux" {
		return
	}
	r := startCmd(t, nil, nil, "bench", "-topic", "t", "-scenario", "ingest")
	r.wait(t, exitUsage)
	if !strings.Contains(r.err.String(), `no scenario matches "ingest"`) {
		t.Errorf("ingest without -local: %s", r.err.String())
	}
	// Nothing listens there: it is told, and no table is printed.
	r = startCmd(t, nil, nil, "bench", "-topic", "t", "-nodes", "127.0.0.1:1", "-kafka", "127.0.0.1:1", "-runs", "1", "-scenario", "fanout-50")
	r.cancel()
	r.wait(t, exitOK)
	if r.out.String() != "" {
		t.Errorf("out: %s", r.out.String())
	}
}

// Before: the nodes' admin ports were shown nothing, so that one with a token or a certificate had no figures.
func TestBenchShowsTheAdminToken(t *testing.T) {
	const token = "of this test"
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the port was shown %q", r.Header.Get("Authorization"))
		}
	}))
	defer node.Close()
	var o bench.Options
	e := env{get: func(name string) string { return map[string]string{"TIDECTL_ADMIN_TOKEN": token}[name] }}
	if err := clusterBench(&o, &clientFlags{}, &kafkaFlags{}, e); err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: o.AdminTransport}).Get(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	e.get = func(name string) string { return map[string]string{"TIDECTL_ADMIN_CA": "/none.pem"}[name] }
	if err := clusterBench(&o, &clientFlags{}, &kafkaFlags{}, e); err == nil || !strings.Contains(err.Error(), "TIDECTL_ADMIN_CA") {
		t.Error(err)
	}
}

func TestBenchList(t *testing.T) {
	r := startCmd(t, nil, nil, "bench", "-list")
	r.wait(t, exitOK)
	if got := strings.Count(r.out.String(), "\n"); got != len(bench.Scenarios()) || !strings.Contains(r.out.String(), "storm        10,000 clients") {
		t.Errorf("%d lines:\n%s", got, r.out.String())
	}
}

func TestBenchFloor(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	in, write := io.Pipe()
	r := startCmd(t, nil, in, "bench", "floor", "-listen", "127.0.0.1:0", "-size", "100")
	eventually(t, "it listens", func() bool { return strings.HasPrefix(r.out.String(), "127.0.0.1:") })
	_, _ = write.Write([]byte("send 3\n"))
	_ = write.Close()
	r.wait(t, exitOK)
	r = startCmd(t, nil, strings.NewReader("dance 1\n"), "bench", "floor")
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), `"dance 1"`) {
		t.Errorf("err %s", r.err.String())
	}
}
