package node

import (
	"os"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
