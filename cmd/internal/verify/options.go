package verify

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say what a Driver does. A count that is negative is none of that kind; zero is the default.
type Options struct {
	Nodes []string // clients' addresses, host:port; required
	Token string   // for the nodes; empty: none

	Brokers []string  // of Kafka; required
	Kafka   []kgo.Opt // for every connection to Kafka: TLS, SASL

	// Topics must be exposed by the cluster, and open for publishing unless Publishers is negative.
	// Create makes those that are missing, with Partitions (default 6) and Replication (default the
	// broker's) and no retention.
	Topics      []string
	Create      bool
	Partitions  int
	Replication int

	Duration    time.Duration // of the load; default 30 s
	Rate        int           // records per second written straight to Kafka, all topics together; default 200
	TxnRate     int           // how many of these in transactions; default a quarter
	PublishRate int           // publishes per second, all publishers together; default 50
	Settle      time.Duration // at most, for all subscribers to reach Kafka's end; default 60 s

	Publishers int // default 4
	KeySubs    int // subscribers of one key each, per topic; default 6
	Roamers    int // per topic; default 4
	SlowSubs   int // per topic; default 2
	SlowRate   int // bytes per second that a slow one reads; default 16384
	Histories  int // at a time, per topic; default 2
	Crowd      int // subscribers of one key each, per topic, all on the first node while it lives; default none

	CutEvery time.Duration // how often some roamer is cut, of all topics; default 300 ms; negative: never
	Seed     uint64        // of every choice made at random; 0: a new one
	Limits   Limits

	// Progress, if not nil, is told in words what the driver begins to do, from one goroutine.
	Progress func(format string, args ...any)
}

// ErrOptions marks an option that cannot be.
var ErrOptions = errors.New("wrong option")

// withDefaults returns the options with what was left out filled in.
func (o Options) withDefaults() (Options, error) {
	switch {
	case len(o.Nodes) == 0:
		return o, fmt.Errorf("%w: no nodes", ErrOptions)
	case len(o.Brokers) == 0:
		return o, fmt.Errorf("%w: no Kafka brokers", ErrOptions)
	case len(o.Topics) == 0:
		return o, fmt.Errorf("%w: no topics", ErrOptions)
	case o.Duration < 0 || o.Settle < 0:
		return o, fmt.Errorf("%w: a time below zero", ErrOptions)
	}
	for _, d := range []struct {
		v  *int
		to int
	}{
		{&o.Partitions, 6}, {&o.Replication, -1}, {&o.Rate, 200}, {&o.PublishRate, 50}, {&o.Publishers, 4}, {&o.KeySubs, 6},
		{&o.Roamers, 4}, {&o.SlowSubs, 2}, {&o.SlowRate, 16 << 10}, {&o.Histories, 2},
	} {
		if *d.v == 0 {
			*d.v = d.to
		}
	}
	if o.TxnRate == 0 {
		o.TxnRate = max(0, o.Rate) / 4
	}
	o.Duration = orDuration(o.Duration, 30*time.Second)
	o.Settle = orDuration(o.Settle, time.Minute)
	o.CutEvery = orDuration(o.CutEvery, 300*time.Millisecond)
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	return o, nil
}

func orDuration(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// keys are what the writers spread their records over; nil is the null key. Some lie under one prefix,
// some need care in a subject.
var keys = func() (list [][]byte) {
	for i := range 16 {
		list = append(list, []byte("k"+strconv.Itoa(i)))
	}
	for i := range 6 {
		list = append(list, []byte("a/"+strconv.Itoa(i)))
	}
	return append(list, []byte("50%/é"), []byte("*"), []byte{0xff, '/', 0x01}, nil)
}()

// Counters are what a run has done so far.
type Counters struct {
	Written, Aborted, Published, Acked     int64
	Delivered, Disconnects, Resumes, Gaps  int64
	Subscribed, Subscribers, NotSubscribed int64
}

// counters are the live ones, counted by all parts of a driver.
type counters struct {
	written, aborted, published, acked    atomic.Int64
	delivered, disconnects, resumes, gaps atomic.Int64
	subscribed, subscribers               atomic.Int64 // subscribed: have a subscription at this moment
}

func (c *counters) read() Counters {
	n := Counters{Written: c.written.Load(), Aborted: c.aborted.Load(), Published: c.published.Load(), Acked: c.acked.Load(),
		Delivered: c.delivered.Load(), Disconnects: c.disconnects.Load(), Resumes: c.resumes.Load(), Gaps: c.gaps.Load(),
		Subscribed: c.subscribed.Load(), Subscribers: c.subscribers.Load()}
	n.NotSubscribed = n.Subscribers - n.Subscribed
	return n
}
