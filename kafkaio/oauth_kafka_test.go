package kafkaio

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// OAUTHBEARER with a real broker: tokens of an endpoint and of a file, for everything that this package does, and
// what is said when there is none or when the broker does not want it.
func TestRealOAuth(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Start(t, kafkatest.Options{Version: version, SASL: true})
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 1, nil)
		config := func(o OAuth) Config {
			tc, mech, err := Security{TLS: true, CA: k.CAFile, Mechanism: MechanismOAuthBearer, OAuth: o}.Build()
			if err != nil {
				t.Fatal(err)
			}
			return Config{Brokers: k.SASLBrokers(), TLS: tc, SASL: mech, DialTimeout: waitTimeout}
		}
		dial := func(t *testing.T, o OAuth) error {
			t.Helper()
			client, err := NewClient(config(o))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			conn, err := client.DialAny(t.Context())
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
		e := newTokenEndpoint(t, func() (string, int) { return kafkatest.UnsignedToken("tidewire", time.Hour), 3600 })

		t.Run("endpoint", func(t *testing.T) {
			cfg := config(e.oauth(clientPassword))
			w := newWriter(t, cfg, topic)
			w.produce(tp(topic, 0), "v")
			n := newNodes(t, cfg, map[string]int32{topic: 1})
			n.coordinate("n1", tp(topic, 0))
			n.reached(tp(topic, 0), 1, "v")
			g := n.join("n1")
			n.has(g, tp(topic, 0))
			n.committed(g, tp(topic, 0), 1, "v")
			if n := e.asked.Load(); n != 1 {
				t.Errorf("%d questions for a token that lasts an hour", n)
			}
		})
		t.Run("wrong secret", func(t *testing.T) {
			err := dial(t, e.oauth("planted wrong"))
			var auth *AuthError
			if err == nil || errors.As(err, &auth) {
				t.Fatalf("error %v: Kafka was not asked", err)
			}
			if s := err.Error(); strings.Contains(s, "planted") || !strings.Contains(s, "invalid_client") || !strings.Contains(s, e.URL) {
				t.Errorf("error %s", s)
			}
		})
		t.Run("file", func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			put := func(token string) {
				if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			put(kafkatest.UnsignedToken("tidewire", time.Hour))
			inFile, err := secret.FromFile(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := dial(t, OAuth{Token: inFile}); err != nil {
				t.Fatal(err)
			}
			expired := kafkatest.UnsignedToken("tidewire", -time.Second)
			put(expired)
			waitFor(t, "the expired token is refused", func() bool { err = dial(t, OAuth{Token: inFile}); return err != nil })
			var auth *AuthError
			if !errors.As(err, &auth) || auth.Mechanism != MechanismOAuthBearer || !strings.Contains(err.Error(), "invalid_token") {
				t.Errorf("error %v", err)
			}
			if strings.Contains(err.Error(), expired) || strings.Contains(err.Error(), strings.Split(expired, ".")[1]) {
				t.Errorf("the token is in %v", err)
			}
			put(kafkatest.UnsignedToken("tidewire", time.Hour))
			waitFor(t, "the new token is taken", func() bool { return dial(t, OAuth{Token: inFile}) == nil })
		})
	})
}
