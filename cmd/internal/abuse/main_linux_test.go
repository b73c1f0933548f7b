package abuse

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestMain is an attacker's process when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "attacker" {
		if err := RunAttacker(os.Args[2], context.Background(), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(kafkatest.Main(m))
}
