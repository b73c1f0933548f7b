package kafkatest

import (
	"path/filepath"
	"strings"
)

// Alone is a real Kafka without a test around it: what a program measures against.
type Alone struct{ k *cluster }

// StartAlone starts a Kafka with its data in dir and waits until all its brokers answer. jvm are flags for
// their JVMs, over those that suit tests. Close ends it; so does the end of this process.
func StartAlone(o Options, dir string, jvm ...string) (*Alone, error) {
	k, err := startWith(o, dir, false, jvm)
	if err != nil {
		return nil, err
	}
	return &Alone{k}, nil
}

// Brokers returns the host:port of every broker.
func (a *Alone) Brokers() []string { return a.k.addresses(func(n *node) int { return n.plain }) }

// Release returns the version that runs, as far as it is known.
func (a *Alone) Release() string {
	if a.k.source.jars != "" {
		return filepath.Base(a.k.source.jars)
	}
	_, tag, _ := strings.Cut(a.k.source.image, ":")
	return tag
}

// Close kills the brokers. Their data stays in the folder.
func (a *Alone) Close() { a.k.kill() }
