package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/cmd/internal/node"
)

// What each command line prints, where, and the exit code: 0 as asked, 1 failed, 2 wrong usage or
// configuration.
func TestCommandLine(t *testing.T) {
	for _, v := range node.Variables() {
		t.Setenv(v.Name, "") // a variable set to nothing counts as not set
	}
	required := map[string]string{"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_KAFKA_BROKERS": "kafka:9092", "TIDEWIRE_KAFKA_TOPICS": "prices"}
	healthy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer healthy.Close()
	secure := httptest.NewTLSServer(healthy.Config.Handler)
	defer secure.Close()
	sick := httptest.NewServer(http.NotFoundHandler())
	defer sick.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, tc := range []struct {
		name           string
		args           []string
		env            map[string]string
		code           int
		stdout, stderr string // "": must be empty
	}{
		{"help", []string{"-h"}, nil, 0, "TIDEWIRE_KAFKA_BROKERS", ""},
		{"version", []string{"version"}, nil, 0, node.Version(), ""},
		{"config", []string{"config"}, required, 0, "TIDEWIRE_KAFKA_TOPICS=prices", ""},
		{"nothing set", []string{"config"}, nil, 2, "", "TIDEWIRE_KAFKA_BROKERS"},
		{"start with nothing set", nil, nil, 2, "", "TIDEWIRE_KAFKA_TOPICS"},
		{"no such command", []string{"serve"}, nil, 2, "", `no command "serve"`},
		{"two commands", []string{"config", "version"}, nil, 2, "", "one command at most"},
		{"healthy", []string{"healthcheck"}, map[string]string{"TIDEWIRE_ADMIN_LISTEN": healthy.Listener.Addr().String()}, 0, "", ""},
		{"healthy over TLS", []string{"healthcheck"}, map[string]string{"TIDEWIRE_ADMIN_LISTEN": secure.Listener.Addr().String(), "TIDEWIRE_ADMIN_TLS_CERT": "cert.pem"}, 0, "", ""},
		{"sick", []string{"healthcheck"}, map[string]string{"TIDEWIRE_ADMIN_LISTEN": sick.Listener.Addr().String()}, 1, "", "404"},
		{"address in use", nil, map[string]string{"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_KAFKA_BROKERS": "kafka:9092", "TIDEWIRE_KAFKA_TOPICS": "prices",
			"TIDEWIRE_ADMIN_LISTEN": taken.Addr().String()}, 1, "", "TIDEWIRE_ADMIN_LISTEN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			var stdout, stderr bytes.Buffer
			if code := run(tc.args, &stdout, &stderr); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, out := range []struct{ what, got, want string }{{"stdout", stdout.String(), tc.stdout}, {"stderr", stderr.String(), tc.stderr}} {
				if !strings.Contains(out.got, out.want) || out.want == "" && out.got != "" {
					t.Errorf("%s: %q, want %q", out.what, out.got, out.want)
				}
			}
		})
	}
}
