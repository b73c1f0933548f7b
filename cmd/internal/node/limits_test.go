package node

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/wsedge"
)

func TestLimitsOfTheEnvironment(t *testing.T) {
	setEnv(t, nil)
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	l := c.Limits
	if l.Connections != wsedge.DefaultConnections() || l.ConnectionsPerAddress != l.Connections/4 || l.Handshakes != 8192 || l.HandshakeTimeout != 10*time.Second ||
		l.HeaderBytes != 16384 || l.Frames != 1000 || l.Bytes != 4<<20 || l.FrameTimeout != time.Minute || l.BadRequests != 100 || l.Subscriptions != 10000 ||
		l.Positions != 16384 || l.RecordHeaders != 256 || l.RecordHeaderBytes != 64<<10 || l.Publishes != 4096 || l.SessionPublishes != 1000 ||
		l.UserPublishes != 5000 || l.Replays != 64 || l.SessionReplays != 4 || l.WaitingReplays != 65536 || l.ReplayBytes != wsedge.DefaultReplayBytes() || l.PendingBytes < 16<<20 ||
		l.TrustedProxies != nil || l.ProxyProtocol {
		t.Errorf("defaults: %+v", l)
	}
	setEnv(t, map[string]string{
		"TIDEWIRE_MAX_CONNECTIONS": "100", "TIDEWIRE_MAX_CONNECTIONS_PER_IP": "0", "TIDEWIRE_MAX_FRAMES_PER_SECOND": "0", "TIDEWIRE_MAX_BYTES_PER_SECOND": "0",
		"TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND": "7", "TIDEWIRE_TRUSTED_PROXIES": "10.0.0.0/8, 192.168.1.7,fd00::1", "TIDEWIRE_PROXY_PROTOCOL": "true", "TIDEWIRE_MAX_PENDING_BYTES": "32MiB",
		"TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND": "8MiB",
	})
	if c, err = FromEnv(); err != nil {
		t.Fatal(err)
	}
	l = c.Limits
	if l.Connections != 100 || l.ConnectionsPerAddress != unlimited || l.Frames != unlimited || l.Bytes != unlimited || l.UserPublishes != 7 || !l.ProxyProtocol || l.PendingBytes != 32<<20 || l.ReplayBytes != 8<<20 ||
		fmt.Sprint(l.TrustedProxies) != fmt.Sprint([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.1.7/32"), netip.MustParsePrefix("fd00::1/128")}) {
		t.Errorf("as set: %+v", l)
	}
	for name, value := range map[string]string{
		"TIDEWIRE_MAX_CONNECTIONS": "0", "TIDEWIRE_MAX_CONNECTIONS_PER_IP": "-1", "TIDEWIRE_MAX_HANDSHAKES": "x", "TIDEWIRE_HANDSHAKE_TIMEOUT": "10", "TIDEWIRE_MAX_HEADER_BYTES": "4096",
		"TIDEWIRE_MAX_FRAMES_PER_SECOND": "many", "TIDEWIRE_MAX_BYTES_PER_SECOND": "-1", "TIDEWIRE_FRAME_TIMEOUT": "0s", "TIDEWIRE_MAX_BAD_REQUESTS": "0", "TIDEWIRE_MAX_SUBSCRIPTIONS": "0",
		"TIDEWIRE_MAX_RESUME_POSITIONS": "20000", "TIDEWIRE_MAX_RECORD_HEADERS": "300", "TIDEWIRE_MAX_RECORD_HEADER_BYTES": "0", "TIDEWIRE_MAX_PUBLISHES": "0",
		"TIDEWIRE_MAX_SESSION_PUBLISHES_PER_SECOND": "1.5", "TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND": "-5", "TIDEWIRE_MAX_REPLAYS": "0", "TIDEWIRE_MAX_SESSION_REPLAYS": "0",
		"TIDEWIRE_MAX_WAITING_REPLAYS": "0", "TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND": "-1", "TIDEWIRE_MAX_PENDING_BYTES": "1MiB", "TIDEWIRE_TRUSTED_PROXIES": "10.0.0.1/8", "TIDEWIRE_PROXY_PROTOCOL": "true",
	} {
		setEnv(t, map[string]string{"TIDEWIRE_NODE_ID": "n1", name: value})
		if _, err := FromEnv(); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), value) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

// Before: in a small container, or with large frames, the default was less than what is taken when it is given.
func TestDefaultOfPendingBytesIsEnough(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		memory        int64
		maxFrameBytes int
		want          int64
	}{
		{100 * mib, mib, 16 * mib}, {400 * mib, mib, 40 * mib}, {1000 * mib, 64 * mib, 256 * mib}, {4000 * mib, 64 * mib, 400 * mib},
	} {
		if got := defaultPending(c.memory/4, leastPending(c.maxFrameBytes)); got != c.want {
			t.Errorf("of %d bytes, frames of up to %d: %d, want %d", c.memory, c.maxFrameBytes, got, c.want)
		}
	}
	setEnv(t, map[string]string{"TIDEWIRE_MAX_FRAME_BYTES": "64MiB"})
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.PendingBytes < 256*mib {
		t.Errorf("with frames of 64 MiB: %d", c.Limits.PendingBytes)
	}
	// `tidewire config` prints values that may be given.
	t.Setenv("TIDEWIRE_MAX_PENDING_BYTES", fmt.Sprint(c.Limits.PendingBytes))
	if _, err := FromEnv(); err != nil {
		t.Error(err)
	}
}

// What is set for a node is in force at its client port, each limit at its place.
func TestLimitsAreInForce(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 1, nil)
	c := startCluster(t, k, 1, topic, func(cfg *Config) {
		cfg.Groups = 1
		cfg.Limits.Connections, cfg.Limits.ConnectionsPerAddress, cfg.Limits.Subscriptions = 5, 3, 1
		cfg.Limits.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}
	})
	a := c.nodes[0]
	get := func(client string) int {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 8)}}).Dial("tcp", a.node.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(waitTime))
		fmt.Fprintf(conn, "GET /history/%s/k HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nConnection: close\r\n\r\n", topic, client)
		b, _ := io.ReadAll(conn)
		status := 0
		_, _ = fmt.Sscanf(string(b), "HTTP/1.1 %d", &status)
		return status
	}
	var conns []*wire
	for range 3 {
		conn, err := dialWire(t.Context(), a.node.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.close()
		conns = append(conns, conn)
	}
	if conn, err := dialWire(t.Context(), a.node.Addr()); err == nil {
		conn.close()
		t.Error("a fourth connection of an address was let in")
	}
	if status := get("1.1.1.1"); status != http.StatusOK {
		t.Errorf("through the proxy: %d", status)
	}
	for i, want := range []string{"subbed", "limit"} {
		m, err := conns[0].ask(t.Context(), int64(i+1), map[string]any{"op": "sub", "subject": fmt.Sprintf("/%s/%d", topic, i)})
		if err != nil || !strings.Contains(fmt.Sprint(m), want) {
			t.Errorf("subscription %d: %v, %v", i, m, err)
		}
	}
	if _, body := a.ask("/metrics"); !strings.Contains(body, `tidewire_limited_total{limit="address"} 1`) || !strings.Contains(body, `tidewire_limited_total{limit="subscriptions"} 1`) {
		t.Error("not counted")
	}
}
