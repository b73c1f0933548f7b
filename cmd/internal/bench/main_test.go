package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestMain is the floor program when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "floor" {
		var o FloorOptions
		f := flag.NewFlagSet("floor", flag.ExitOnError)
		f.StringVar(&o.Listen, "listen", "", "")
		f.IntVar(&o.Size, "size", 0, "")
		f.IntVar(&o.Keys, "keys", 0, "")
		_ = f.Parse(os.Args[2:])
		if err := Floor(context.Background(), o, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(kafkatest.Main(m))
}
