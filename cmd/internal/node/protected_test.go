package node

import (
	"strings"
	"testing"

	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/replication/peertls/peertlstest"
)

// Three nodes that prove themselves to each other, by a secret or by certificates, deliver on each of them, and say
// how they are protected.
func TestProtectedClusterDelivers(t *testing.T) {
	ca := peertlstest.NewCA(t)
	for name, protect := range map[string]func(*Config){
		"secret": func(c *Config) { c.ClusterSecret = secret.Of(clusterSecret) },
		"CA": func(c *Config) {
			c.ClusterTLS = ca.Files(t.TempDir(), []string{string(c.NodeID)})
			c.ClusterTLS.Names = []string{"n1", "n2", "n3"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
			topic := k.topic(t, 6, nil)
			c := startCluster(t, k, 3, topic, protect)
			var all []*watcher
			for i := range 3 {
				all = append(all, watch(t, "/"+topic+"/*", -1, func(int) string { return c.addr(i) }))
			}
			produce(t, k, topic, 10, 300, "a")
			for i, w := range all {
				eventually(t, "the records", func() bool { return w.count() == 300 })
				if p := w.problemList(); len(p) > 0 {
					t.Error(p[0])
				}
				if s := c.nodes[i].node.Status().ClusterPort; !strings.HasPrefix(s, "TLS") {
					t.Errorf("%s is protected by %q", c.nodes[i].cfg.NodeID, s)
				}
			}
		})
	}
}
