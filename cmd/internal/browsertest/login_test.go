package browsertest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// The console of a node whose operators' port wants a token.
func TestConsoleLogin(t *testing.T) {
	d := &demo{browser: findBrowser(t)}
	const token = "a token of this test alone"
	cfg := node.Defaults()
	cfg.NodeID, cfg.Groups, cfg.DataDir = "n1", 1, filepath.Join(t.TempDir(), "data")
	cfg.Listen, cfg.AdminListen, cfg.ClusterListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.KafkaBrokers, cfg.Admin.Token = kafkatest.Fake(t).Brokers(), secret.Of(token)
	var err error
	if cfg.Topics, err = kafkaio.ParseSelectors("nothing"); err != nil {
		t.Fatal(err)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	d.clients, d.admin = []string{n.Addr()}, []string{n.AdminAddr()}
	d.run(t, "login", map[string]any{"token": token})
}
