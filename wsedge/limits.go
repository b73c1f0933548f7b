package wsedge

import (
	"net/netip"
	"runtime"
	"time"
)

// Limits are walls of a Server: what one client, one address or all of them together may take; Config has the rest of
// them. At each the newcomer is refused or waits, and those who are in are served. The zero value of a field means its
// default, a negative one that there is no such limit.
type Limits struct {
	Connections           int // in all; default: DefaultConnections
	ConnectionsPerAddress int // with IPv6: of a /64; default a quarter of Connections
	Handshakes            int // at once, default 8192, at most half of Connections (but 64)
	HeaderBytes           int // of a request: its line and all headers; default 16 KiB

	Frames       int           // of a session a second, control frames and fragments included; requests of an address a second; default 1000
	Bytes        int           // of frames of a session a second, default 4 MiB
	FrameTimeout time.Duration // until a message is whole that has begun, default 1 m and what Bytes makes of the largest

	Positions         int // of a resume vector, default and most 16384
	RecordHeaders     int // of one publish, default and most 256
	RecordHeaderBytes int // of one publish: names and values, default 64 KiB

	SessionPublishes int // of one session a second, default 1000
	UserPublishes    int // of one user a second, and of an address without one; on this node; default 5000

	WaitingReplays int // of all sessions together, reading from Kafka or waiting to; default 65536
	ReplayBytes    int // of records that all of them together read from Kafka a second; default DefaultReplayBytes

	PendingBytes int64 // of all sessions together: what is kept for sockets that do not take it, and again what is on its way to Kafka; default 256 MiB

	// TrustedProxies may say for whom they speak: in X-Forwarded-For, and by the PROXY protocol.
	TrustedProxies []netip.Prefix
	// ProxyProtocol: trusted proxies begin each connection with a header of the PROXY protocol, version 2.
	ProxyProtocol bool
}

func (l *Limits) setDefaults(maxFrame int64) {
	def := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	def(&l.Connections, DefaultConnections())
	if l.Connections > 0 {
		def(&l.ConnectionsPerAddress, max(1, l.Connections/4))
	}
	def(&l.Handshakes, 8192)
	if l.Connections > 0 && l.Handshakes > 0 {
		l.Handshakes = min(l.Handshakes, max(maxTurnedAway, l.Connections/2))
	}
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = 16 << 10
	}
	def(&l.Frames, 1000)
	def(&l.Bytes, 4<<20)
	if l.FrameTimeout == 0 {
		l.FrameTimeout = time.Minute
	}
	if l.Bytes > 0 && l.FrameTimeout > 0 {
		l.FrameTimeout += time.Duration(maxFrame) * time.Second / time.Duration(l.Bytes)
	}
	def(&l.Positions, maxVector)
	def(&l.RecordHeaders, maxOpHeaders)
	def(&l.RecordHeaderBytes, 64<<10)
	def(&l.SessionPublishes, 1000)
	def(&l.UserPublishes, 5000)
	def(&l.WaitingReplays, 1<<16)
	def(&l.ReplayBytes, DefaultReplayBytes())
	if l.PendingBytes == 0 {
		l.PendingBytes = 256 << 20
	}
}

// DefaultConnections is how many connections a process takes that is not told: four fifths of its file descriptors. The
// rest is for Kafka, the other nodes and the disk, without which there would be nothing to serve.
func DefaultConnections() int { return max(16, min(descriptors(), 1<<20)/5*4) }

// DefaultReplayBytes is how many bytes a second a process reads from Kafka for clients that resume, if it is not told.
func DefaultReplayBytes() int { return runtime.GOMAXPROCS(0) * 64 << 20 }

// The limits as tidewire_limited_total names them.
const (
	limitConnections    = "connections"
	limitAddress        = "address"
	limitHandshakes     = "handshakes"
	limitHandshakeTime  = "handshake_time"
	limitHeaderBytes    = "header_bytes"
	limitProxy          = "proxy_header"
	limitFrames         = "frames"
	limitBytes          = "bytes"
	limitFrameTime      = "frame_time"
	limitRequests       = "requests"
	limitBadRequests    = "bad_requests"
	limitSubscriptions  = "subscriptions"
	limitPositions      = "positions"
	limitRecordHeaders  = "record_headers"
	limitPublishes      = "publishes"
	limitSessionRate    = "session_publishes"
	limitUserRate       = "user_publishes"
	limitReplays        = "replays"
	limitSessionReplays = "session_replays"
	limitWaitingReplays = "waiting_replays"
	limitReplayBytes    = "replay_bytes"
	limitPending        = "pending_bytes"
)

// limitNames are all of them: each is there, at 0, before it is first met.
var limitNames = [...]string{
	limitConnections, limitAddress, limitHandshakes, limitHandshakeTime, limitHeaderBytes, limitProxy, limitFrames, limitBytes, limitFrameTime,
	limitRequests, limitBadRequests, limitSubscriptions, limitPositions, limitRecordHeaders, limitPublishes, limitSessionRate, limitUserRate,
	limitReplays, limitSessionReplays, limitWaitingReplays, limitReplayBytes, limitPending,
}

// limitLogEvery is how often a limit that is met again and again is logged.
const limitLogEvery = time.Minute

// limited counts that somebody has met a limit, and logs the first of each minute.
func (srv *Server) limited(name string) {
	m := srv.metrics.limits[name]
	m.count.Add(1)
	now := time.Now().UnixNano()
	if last := m.logged.Load(); (last == 0 || now-last >= int64(limitLogEvery)) && m.logged.CompareAndSwap(last, now) {
		srv.log.Warn().Str("limit", name).Int64("times", m.count.Load()).Msg("a limit was met; it is told again after a minute at the earliest")
	}
}
