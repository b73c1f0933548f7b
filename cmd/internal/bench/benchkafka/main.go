// Command benchkafka runs a real Kafka for the bench, of one broker, until its standard input ends. It prints the
// broker's address, a line, once it answers.
//
// It is a program of its own so that tidectl does not carry what only tests need.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func main() {
	version := flag.String("version", "4", "release `line`")
	dir := flag.String("dir", "", "`folder` for its data and logs")
	heap := flag.String("heap", "1g", "of the JVM")
	flag.Parse()
	if err := run(*version, *dir, *heap); err != nil {
		fmt.Fprintln(os.Stderr, "benchkafka:", err)
		os.Exit(1)
	}
}

func run(version, dir, heap string) error {
	// It is ended by its input, in order; a signal for the terminal's whole group must not come before that.
	signal.Ignore(os.Interrupt)
	k, err := kafkatest.StartAlone(kafkatest.Options{Version: version, Config: map[string]string{
		"num.network.threads": "3", "num.io.threads": "8",
	}}, dir, "-Xmx"+heap, "-XX:TieredStopAtLevel=4") // what is measured runs for minutes: let the JVM compile it well
	if err != nil {
		return err
	}
	defer k.Close()
	if _, err := fmt.Println(strings.Join(k.Brokers(), ","), k.Release()); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- syscall.SIGTERM
	}()
	<-ended
	return nil
}
