package abuse

import (
	"crypto/rand"
	"crypto/tls"
	"net"
	"time"
)

// clusterPort sends the nodes' own port what a stranger has: rubbish, silence, TLS without a proof, and what he has
// seen others say.
func clusterPort(a *attacker) {
	said := a.Overheard
	if len(said) == 0 {
		said = [][]byte{ownHandshake(a)}
	}
	const workers, rate = 20, 200
	a.side(workers, func(w int) {
		kind := w
		a.pace(rate/workers, one(func() bool {
			c, err := a.dial(a.Cluster[kind%len(a.Cluster)], false)
			if err != nil {
				return a.ctx.Err() == nil
			}
			kind++
			switch stop := a.closeWithAttack(c); kind % 4 {
			case 0: // rubbish
				b := make([]byte, 4096)
				_, _ = rand.Read(b) // never fails
				_, _ = c.Write(b)
				a.count("rubbish", 1)
				lookThenClose(c, stop)
			case 1: // silence, for as long as he is let
				a.count("silent", 1)
				time.AfterFunc(4*time.Second, stop)
			case 2: // what was said before, in one go
				_, _ = c.Write(said[kind/4%len(said)])
				a.count("said again", 1)
				lookThenClose(c, stop)
			case 3: // TLS, and then something that is no proof
				_ = c.SetDeadline(time.Now().Add(time.Second))
				t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
				if t.HandshakeContext(a.ctx) == nil {
					a.count("TLS without a proof", 1)
					b := make([]byte, 1000)
					_, _ = rand.Read(b) // never fails
					_, _ = t.Write(b)
				}
				lookThenClose(c, stop)
			}
			return a.ctx.Err() == nil
		}))
	})
}

// lookThenClose gives the other end a moment to say something.
func lookThenClose(c net.Conn, stop func()) {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	var b [256]byte
	_, _ = c.Read(b[:])
	stop()
}

// ownHandshake is what a stranger himself says to the port in a TLS handshake, and after it.
func ownHandshake(a *attacker) []byte {
	for _, addr := range a.Cluster {
		c, err := a.dial(addr, false)
		if err != nil {
			continue
		}
		stop := a.closeWithAttack(c)
		rec := &recorder{Conn: c}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		t := tls.Client(rec, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if t.HandshakeContext(a.ctx) == nil {
			_, _ = t.Write(make([]byte, 100))
		}
		stop()
		if len(rec.said) > 0 {
			return rec.said
		}
	}
	return nil
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	said []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.said = append(r.said, b...)
	return r.Conn.Write(b)
}
