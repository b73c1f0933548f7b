// Command benchcentrifuge is a small server on the centrifuge library, for the bench to compare with: the same
// channels, clients and messages that Tidewire has there, published in this process.
//
// It prints its address, a line, once it listens. Each line "send N" on its standard input publishes the next N
// messages: message i goes to channel k%05d of i%keys. At the end of its input it ends.
//
// It runs as the library does by default: publications go to a client's queue and are written, up to 16 in a
// frame, by that client's goroutine. No history and no positions are kept, which is its cheapest way.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` for clients")
	size := flag.Int("size", 512, "`bytes` of a message")
	keys := flag.Int("keys", 1, "`number` of channels")
	version := flag.Bool("version", false, "print the library's version")
	flag.Parse()
	if *version {
		fmt.Println(libraryVersion())
		return
	}
	if err := run(*listen, *size, *keys, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchcentrifuge:", err)
		os.Exit(1)
	}
}

func run(listen string, size, keys int, in io.Reader, out io.Writer) (err error) {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError, LogHandler: func(e centrifuge.LogEntry) {
		fmt.Fprintln(os.Stderr, e.Message, e.Fields)
	}})
	if err != nil {
		return err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
			done(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err = errors.Join(err, node.Shutdown(ctx))
	}()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		// The leanest that it offers.
		ReadBufferSize: 512, UseWriteBufferPool: true,
		ProcessCommandsOffReadLoop: true,
	}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln) // ends with Close
	}()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	if _, err := fmt.Fprintln(out, ln.Addr()); err != nil {
		return err
	}
	return obey(node, size, keys, in)
}

func obey(node *centrifuge.Node, size, keys int, in io.Reader) error {
	channels := make([]string, keys)
	for i := range channels {
		channels[i] = fmt.Sprintf("k%05d", i)
	}
	const overhead = len(`{"t":0000000000000000000,"n":"0000000000","p":""}`)
	if size < overhead {
		return fmt.Errorf("a message has at least %d bytes", overhead)
	}
	filler := strings.Repeat("x", size-overhead)
	sent := 0
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		count, ok := strings.CutPrefix(lines.Text(), "send ")
		n, err := strconv.Atoi(count)
		if !ok || err != nil {
			return fmt.Errorf("line %q: want send N", lines.Text())
		}
		for range n {
			data := fmt.Appendf(make([]byte, 0, size), `{"t":%019d,"n":"%010d","p":"%s"}`, time.Now().UnixNano(), sent/keys, filler)
			if _, err := node.Publish(channels[sent%keys], data); err != nil {
				return err
			}
			sent++
		}
	}
	return lines.Err()
}
