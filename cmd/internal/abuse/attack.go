package abuse

import (
	"regexp"
	"time"
)

// Attack is one way to do harm.
type Attack struct {
	Name   string
	About  string        // what is done, for people
	Figure string        // how much of it: the rate that the attackers keep to, in all
	Least  time.Duration // what it needs to meet what it has to, however short a run was asked for

	// Meets are the traces that it has to leave, one of them at least: an attack that nothing answered was none, and
	// proves nothing. "limit NAME" is a limit that a node has met (tidewire_limited_total), "peak METRIC" a gauge that was
	// above zero, "rise METRIC" a counter that rose, anything else what the attackers have counted.
	Meets []string

	processes int
	run       func(*attacker)
}

// didCPU is what an attacker's process counts of itself: milliseconds of processor time.
const didCPU = "cpu ms"

// Target is what attackers know. It reaches their processes as JSON.
type Target struct {
	Attack  string
	Clients []string // where the nodes serve clients, host:port
	Cluster []string // where they listen for each other
	Token   string   // good: attackers may be customers, too

	Live, Archive, Chat string // topics: with the honest clients' records, with many old ones, to publish to
	Partitions          int32  // of Archive
	Keys                int    // of Archive: k0, k1 …

	Overheard [][]byte // what nodes have said to each other on the cluster port, where it could be heard

	Process, Processes int // which of the attack's processes this is, and of how many
	For                time.Duration
}

// Select returns the attacks whose whole name the expression matches, all if it is empty.
func Select(expression string) ([]Attack, error) {
	re, err := regexp.Compile("^(?:" + expression + ")$")
	if err != nil {
		return nil, err
	}
	var out []Attack
	for _, a := range Attacks() {
		if expression == "" || re.MatchString(a.Name) {
			out = append(out, a)
		}
	}
	return out, nil
}

// Attacks returns all, in the order in which they are run.
func Attacks() []Attack {
	return []Attack{
		{Name: "half-open", About: "handshakes that begin and never go on, all on one node", Figure: "20,000 connections within 5 s",
			Meets: []string{"limit handshakes"}, processes: 2, run: halfOpen},
		{Name: "slow-headers", About: "a request whose headers come a byte a second", Figure: "1,200 connections at a time",
			Least: 12 * time.Second, Meets: []string{"limit handshake_time"}, processes: 1, run: slowHeaders},
		{Name: "never-read", About: "clients that subscribe to everything, with all its history, and read nothing", Figure: "300 connections",
			Meets: []string{"peak tidewire_blocked_connections"}, processes: 1, run: neverRead},
		{Name: "pings", About: "pings without end", Figure: "5 sessions, 2,500 a second each",
			Meets: []string{"limit frames"}, processes: 1, run: pings},
		{Name: "bad-frames", About: "what is no JSON, no operation, no subject, no UTF-8", Figure: "20 sessions, 200 a second each",
			Meets: []string{"closed 4009"}, processes: 1, run: badFrames},
		{Name: "random-subs", About: "subscriptions to keys that nobody has heard of", Figure: "2 sessions, 2,000 a second each",
			Least: 7 * time.Second, Meets: []string{"limit subscriptions"}, processes: 1, run: randomSubs},
		{Name: "replays", About: "resumes of a key from the oldest record, for which a node reads most of a partition from Kafka", Figure: "8 sessions, 8 a second in all, 10 MB and more to read each",
			Meets: []string{`rise tidewire_resumes_total{outcome="kafka"}`}, processes: 1, run: replays},
		{Name: "fragments", About: "messages of fragments without end, empty ones and full ones", Figure: "20 sessions, 200 a second each",
			Meets: []string{"closed 1009"}, processes: 1, run: fragments},
		{Name: "bombs", About: "compressed messages of 64 KB that unpack to 64 MB", Figure: "20 a second",
			Meets: []string{"closed 1009"}, processes: 1, run: bombs},
		{Name: "wrong-mask", About: "frames of clients that are not masked", Figure: "100 connections a second",
			Meets: []string{"closed 1002", "cut"}, processes: 1, run: wrongMask},
		{Name: "reserved-bits", About: "frames with reserved bits and opcodes, control frames that are too long or in pieces", Figure: "100 connections a second",
			Meets: []string{"closed 1002"}, processes: 1, run: reservedBits},
		{Name: "connects", About: "handshakes with a good token, each closed at once", Figure: "1,000 a second",
			Meets: []string{"connected"}, processes: 1, run: connects},
		{Name: "big-tokens", About: "tokens of 1 MB, as an operation and as a header", Figure: "10 a second of each",
			Meets: []string{"limit header_bytes"}, processes: 1, run: bigTokens},
		{Name: "publishes", About: "one user publishes on three nodes, as much as he may and more", Figure: "3 sessions a node, 150 a second each, of which 50 a node are allowed",
			Meets: []string{"limit user_publishes"}, processes: 1, run: publishes},
		{Name: "cluster-port", About: "rubbish, silence and bytes that were said before, on the nodes' own port", Figure: "200 connections a second",
			Meets: []string{"rise tidewire_cluster_strangers_total"}, processes: 1, run: clusterPort},
	}
}
