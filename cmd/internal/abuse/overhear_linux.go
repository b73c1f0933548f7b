package abuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ear hears the beginnings of TCP connections on the loopback interface: what somebody on the nodes' network could send to
// them again. It needs CAP_NET_RAW.
type ear struct {
	fd      int
	stopped atomic.Bool
	wg      sync.WaitGroup
	streams map[[2]uint16]*overheardStream // by the ports it comes from and goes to; its goroutine's until stop has returned
}

type overheardStream struct {
	next uint32 // sequence number
	said []byte
	gap  bool // something was not heard: what comes later is worth nothing
}

const (
	maxStreams   = 4096
	maxOverheard = 4 << 10 // of each, which is a handshake and what follows it
	keepStreams  = 6
)

func listen() (*ear, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}) // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil, fmt.Errorf("listen to the loopback interface: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: lo.Index}); err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen to the loopback interface: %w", err), unix.Close(fd))
	}
	// What does not fit is not heard, and a gap. Who may, has it whatever the system's limit, which is 200 KiB mostly: four packets.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	}
	e := &ear{fd: fd, streams: map[[2]uint16]*overheardStream{}}
	e.wg.Go(e.run)
	return e, nil
}

func (e *ear) run() {
	buf := make([]byte, 64<<10)
	var until time.Time
	for {
		if stopped := e.stopped.Load(); stopped && until.IsZero() {
			until = time.Now().Add(time.Second) // for what waits to be heard
		} else if stopped && time.Now().After(until) {
			return
		}
		n, from, err := unix.Recvfrom(e.fd, buf, 0)
		if err != nil { // the time is over, mostly
			if e.stopped.Load() {
				return
			}
			continue
		}
		// On this interface each packet is seen as it leaves and as it comes.
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			e.hear(buf[:n])
		}
	}
}

// hear takes an IPv4 packet.
func (e *ear) hear(p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_TCP {
		return
	}
	ip := int(p[0]&15) * 4
	if len(p) < ip+20 {
		return
	}
	t := p[ip:]
	head := int(t[12]>>4) * 4
	if head < 20 || len(t) < head {
		return
	}
	ports := [2]uint16{binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])}
	seq, payload := binary.BigEndian.Uint32(t[4:]), t[head:]
	if syn := t[13]&2 != 0; syn {
		if len(e.streams) < maxStreams {
			e.streams[ports] = &overheardStream{next: seq + 1}
		}
		return
	}
	s := e.streams[ports]
	if s == nil || s.gap || len(payload) == 0 || len(s.said) >= maxOverheard {
		return
	}
	if seq != s.next {
		s.gap = int32(seq-s.next) > 0 // or it came again
		return
	}
	s.next += uint32(len(payload))
	s.said = append(s.said, payload[:min(len(payload), maxOverheard-len(s.said))]...)
}

// stop ends it and returns what was said to ports of those addresses, the longest first.
func (e *ear) stop(to []string) (said [][]byte) {
	e.stopped.Store(true)
	e.wg.Wait()
	_ = unix.Close(e.fd)
	for _, addr := range to {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			continue
		}
		for ports, s := range e.streams {
			if ports[1] == uint16(a.Port) && len(s.said) > 0 {
				said = append(said, s.said)
			}
		}
	}
	slices.SortFunc(said, func(a, b []byte) int { return len(b) - len(a) })
	return said[:min(len(said), keepStreams)]
}
