package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// toolTimeout bounds one run of a command-line tool.
const toolTimeout = startTimeout

// Tool runs one of Kafka's command-line tools by the name of its class, such as
// org.apache.kafka.tools.TopicCommand, in a JVM of its own. It returns what the
// tool printed to stdout; the error, if any, ends with what it printed to stderr.
// The caller passes --bootstrap-server.
func (c *Cluster) Tool(class string, args ...string) (string, error) {
	c.t.Helper()
	src, dir := c.k.source, c.k.dir
	if src == nil { // an external cluster: the newest tools talk to any broker
		var err error
		if src, err = findSource("4"); err != nil {
			fail(c.t, err)
		}
		dir = c.t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	return runTool(src.command(ctx, dir, "", []string{logLevel("warn")}, class, args...))
}

func runTool(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ConsumerGroupsDescribe returns what `kafka-consumer-groups --describe` prints
// of a group: a line a partition with its offsets, lag and member.
func (c *Cluster) ConsumerGroupsDescribe(group string) string {
	c.t.Helper()
	out, err := c.Tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"--bootstrap-server", strings.Join(c.Brokers(), ","), "--describe", "--group", group,
		"--timeout", fmt.Sprint(toolTimeout.Milliseconds())) // of its own accord it gives up after 5 s
	if err != nil {
		c.t.Fatalf("describe group %s: %v", group, err)
	}
	return out
}
