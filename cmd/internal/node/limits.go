package node

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/wsedge"
)

// Limits are what clients may take of a node. The zero value of each means its default.
type Limits struct {
	wsedge.Limits

	HandshakeTimeout time.Duration
	BadRequests      int
	Subscriptions    int // of a session
	Publishes        int // of all, on their way to Kafka
	Replays          int // of all, reading from Kafka
	SessionReplays   int
}

// unlimited is what wsedge takes for no limit, as 0 is in the environment.
const unlimited = -1

// parseLimits reads them. Of those that may be 0, 0 is no limit.
func (e *env) parseLimits(c *Config, p *problems) {
	l := &c.Limits
	l.Connections = wsedge.DefaultConnections()
	if e.MaxConnections != "" {
		l.Connections = p.count("TIDEWIRE_MAX_CONNECTIONS", e.MaxConnections, 1, 10_000_000)
	}
	l.ConnectionsPerAddress = max(1, l.Connections/4)
	if e.MaxConnectionsPerIP != "" {
		l.ConnectionsPerAddress = p.limit("TIDEWIRE_MAX_CONNECTIONS_PER_IP", e.MaxConnectionsPerIP)
	}
	l.Handshakes = p.count("TIDEWIRE_MAX_HANDSHAKES", e.MaxHandshakes, 1, 10_000_000)
	l.HandshakeTimeout = p.duration("TIDEWIRE_HANDSHAKE_TIMEOUT", e.HandshakeTimeout, 100*time.Millisecond, 10*time.Minute)
	// A resume token of an SSE connection has up to 10 KiB, and comes in a header.
	l.HeaderBytes = p.bytes("TIDEWIRE_MAX_HEADER_BYTES", e.MaxHeaderBytes, 12<<10, 1<<20)
	l.Frames = p.limit("TIDEWIRE_MAX_FRAMES_PER_SECOND", e.MaxFrames)
	l.Bytes = p.bytes("TIDEWIRE_MAX_BYTES_PER_SECOND", e.MaxBytes, 0, 1<<40)
	if l.Bytes == 0 {
		l.Bytes = unlimited
	}
	l.FrameTimeout = p.duration("TIDEWIRE_FRAME_TIMEOUT", e.FrameTimeout, time.Second, time.Hour)
	l.BadRequests = p.count("TIDEWIRE_MAX_BAD_REQUESTS", e.MaxBadRequests, 1, 1_000_000)
	l.Subscriptions = p.count("TIDEWIRE_MAX_SUBSCRIPTIONS", e.MaxSubscriptions, 1, 1_000_000)
	l.Positions = p.count("TIDEWIRE_MAX_RESUME_POSITIONS", e.MaxPositions, 1, 16384)
	l.RecordHeaders = p.count("TIDEWIRE_MAX_RECORD_HEADERS", e.MaxRecordHeaders, 1, 256)
	l.RecordHeaderBytes = p.bytes("TIDEWIRE_MAX_RECORD_HEADER_BYTES", e.MaxRecordHeaderBytes, 1, 64<<20)
	l.Publishes = p.count("TIDEWIRE_MAX_PUBLISHES", e.MaxPublishes, 1, 1_000_000)
	l.SessionPublishes = p.limit("TIDEWIRE_MAX_SESSION_PUBLISHES_PER_SECOND", e.MaxSessionPublishes)
	l.UserPublishes = p.limit("TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND", e.MaxUserPublishes)
	l.Replays = p.count("TIDEWIRE_MAX_REPLAYS", e.MaxReplays, 1, 10_000)
	l.SessionReplays = p.count("TIDEWIRE_MAX_SESSION_REPLAYS", e.MaxSessionReplays, 1, 10_000)
	l.WaitingReplays = p.count("TIDEWIRE_MAX_WAITING_REPLAYS", e.MaxWaitingReplays, 1, 10_000_000)
	l.ReplayBytes = wsedge.DefaultReplayBytes()
	if e.MaxReplayBytes != "" {
		if l.ReplayBytes = p.bytes("TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND", e.MaxReplayBytes, 0, 1<<40); l.ReplayBytes == 0 {
			l.ReplayBytes = unlimited
		}
	}
	least := leastPending(c.MaxFrameBytes)
	l.PendingBytes = defaultPending(quarterOfMemory(), least)
	if e.MaxPendingBytes != "" {
		n, ok := parseBytes(e.MaxPendingBytes)
		if !ok || n < least {
			p.add("TIDEWIRE_MAX_PENDING_BYTES", e.MaxPendingBytes, "want a number of bytes, at least %d: 16 MiB and four of the largest frames", least)
		}
		l.PendingBytes = n
	}
	for _, s := range list(e.TrustedProxies) {
		prefix, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || prefix != prefix.Masked() {
			p.add("TIDEWIRE_TRUSTED_PROXIES", s, "want addresses and networks, such as 10.0.0.7 or 10.0.0.0/8")
			continue
		}
		l.TrustedProxies = append(l.TrustedProxies, prefix)
	}
	var ok bool
	if l.ProxyProtocol, ok = onOff(e.ProxyProtocol); !ok {
		p.add("TIDEWIRE_PROXY_PROTOCOL", e.ProxyProtocol, "want true or false")
	} else if l.ProxyProtocol && e.TrustedProxies == "" {
		p.add("TIDEWIRE_PROXY_PROTOCOL", e.ProxyProtocol, "whose word is taken must be said: name the proxies in TIDEWIRE_TRUSTED_PROXIES")
	}
}

// leastPending is the least of Limits.PendingBytes, in bytes. A message counts before it is whole: with less, one could be
// waiting for itself.
func leastPending(maxFrameBytes int) int64 { return int64(max(16<<20, 4*maxFrameBytes)) }

// defaultPending is a tenth of memory, of which a quarter is given, if that is enough.
func defaultPending(quarter, least int64) int64 { return max(quarter*2/5, least) }

// limit reads a limit of which 0 is none.
func (p *problems) limit(name, s string) int {
	n := p.count(name, s, 0, 100_000_000)
	if n == 0 {
		return unlimited
	}
	return n
}

func (p *problems) count(name, s string, low, high int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		none := ""
		if low == 0 {
			none = "; 0: no limit"
		}
		p.add(name, s, "want a number from %d to %d%s", low, high, none)
	}
	return n
}

func (p *problems) bytes(name, s string, low, high int64) int {
	n, ok := parseBytes(s)
	if !ok || n < low || n > high {
		p.add(name, s, "want a number of bytes from %d to %d, also as 64KiB or 1MiB", low, high)
	}
	return int(n)
}
