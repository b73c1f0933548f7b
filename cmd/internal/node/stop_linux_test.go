package node

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// connectionsTo counts this machine's open connections to an address on loopback.
func connectionsTo(t *testing.T, addr string) (n int) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	to, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) > 3 && strings.HasSuffix(field[2], fmt.Sprintf(":%04X", to)) && field[3] == "01" { // established
			n++
		}
	}
	return n
}

// A node that has stopped has no connection to Kafka. Those for questions about offsets used to stay, until the process ended.
func TestStoppedNodeHangsUp(t *testing.T) {
	t.Parallel()
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "t"), kfake.NumBrokers(1))
	c := startCluster(t, &aKafka{brokers: k.Brokers()}, 1, "t", nil)
	if connectionsTo(t, k.Brokers()[0]) == 0 {
		t.Fatal("no connection is seen while the node runs")
	}
	c.stop(0)
	if n := connectionsTo(t, k.Brokers()[0]); n != 0 {
		t.Errorf("%d connections", n)
	}
}
