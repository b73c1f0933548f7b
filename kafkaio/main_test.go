package kafkaio

import (
	"os"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestMain stops the Kafka clusters that the tests share.
func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
