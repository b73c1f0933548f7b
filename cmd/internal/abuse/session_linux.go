package abuse

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// session is an attacker's WebSocket: no more of the protocol than it needs to break it.
type session struct {
	a    *attacker
	conn net.Conn
	in   *bufio.Reader
	// answers are what the server sent but records; what nobody takes is dropped.
	answers chan answer
	ended   chan struct{} // the server, or the attack, has closed it
}

// answer is as much of what a server says as attacks look at.
type answer struct {
	Op, Code, Subject string
	At                json.RawMessage
}

// opening says how a session begins.
type opening struct {
	anonymous bool   // shows no token
	small     bool   // has small buffers
	mute      bool   // reads nothing after the handshake
	headers   string // more lines
}

// Opcodes of RFC 6455, section 5.2, and the bits beside them.
const (
	opContinuation = 0
	opText         = 1
	opClose        = 8
	opPing         = 9
	fin            = 0x80
	rsv1           = 0x40
	rsv2           = 0x20
	rsv3           = 0x10
)

// maxFrame bounds what a server sends in one.
const maxFrame = 4 << 20

var errRefused = errors.New("refused")

// open connects to a node and has its handshake answered.
func (a *attacker) open(addr string, o opening) (*session, error) {
	c, err := a.dial(addr, o.small)
	if err != nil {
		return nil, err
	}
	token := a.Token
	if o.anonymous {
		token = ""
	}
	_ = c.SetDeadline(time.Now().Add(dialTime))
	s := &session{a: a, conn: c, in: bufio.NewReaderSize(c, 4096), answers: make(chan answer, 16), ended: make(chan struct{})}
	first := ""
	if _, err = c.Write(request(addr, token, o.headers)); err == nil {
		for line := ""; err == nil && line != "\r\n"; {
			if line, err = s.in.ReadString('\n'); first == "" {
				first = line
			}
		}
	}
	if code := status(first); err != nil || code != "101" {
		_ = c.Close()
		if a.ctx.Err() == nil {
			a.count("answered "+code, 1)
		}
		return nil, fmt.Errorf("%w: %s", errRefused, code)
	}
	_ = c.SetDeadline(time.Time{})
	a.count("connected", 1)
	return s, nil
}

// sessions keeps n sessions going, spread over the nodes: when one has ended the next begins, four a second at most
// of each. f writes into one until that fails or it has done enough.
func (a *attacker) sessions(n int, o opening, f func(i int, s *session)) {
	a.sessionsAt(n, 4, o, f)
}

func (a *attacker) sessionsAt(n int, perSecond float64, o opening, f func(i int, s *session)) {
	a.side(n, func(i int) {
		a.pace(perSecond, one(func() bool {
			s, err := a.open(a.Clients[i%len(a.Clients)], o)
			if err != nil {
				return a.ctx.Err() == nil
			}
			closeNow := a.closeWithAttack(s.conn)
			if o.mute {
				close(s.ended)
			} else {
				go s.read()
			}
			f(i, s)
			select { // the server may be saying why it ends it
			case <-s.ended:
			case <-time.After(time.Second):
			}
			closeNow()
			<-s.ended
			return a.ctx.Err() == nil
		}))
	})
}

// write sends bytes as they are; false: the session is over.
func (s *session) write(b []byte) bool {
	_, err := s.conn.Write(b)
	return err == nil
}

// say sends operations in one frame.
func (s *session) say(ops ...any) bool {
	var text []byte
	for i, op := range ops {
		b, err := json.Marshal(op)
		if err != nil {
			panic(err) // they are all ours
		}
		if i > 0 {
			text = append(text, '\n')
		}
		text = append(text, b...)
	}
	return s.write(appendFrame(nil, fin|opText, text))
}

type fields = map[string]any

// read takes what the server sends until it closes the connection, and counts with which code.
func (s *session) read() {
	defer close(s.ended)
	for {
		op, p, err := readFrame(s.in)
		if err != nil {
			if s.a.ctx.Err() == nil {
				s.a.count("cut", 1)
			}
			return
		}
		switch op & 15 {
		case opClose:
			code := uint16(1005)
			if len(p) >= 2 {
				code = binary.BigEndian.Uint16(p)
			}
			if s.a.ctx.Err() == nil {
				s.a.count(fmt.Sprintf("closed %d", code), 1)
			}
			_ = s.conn.Close()
			return
		case opText:
			if bytes.HasPrefix(p, []byte(`{"op":"msg"`)) {
				continue
			}
			var v answer
			if json.Unmarshal(p, &v) != nil {
				continue
			}
			if v.Op == "error" {
				s.a.count("error "+v.Code, 1)
			} else if v.Op == "acked" {
				s.a.count("acked", 1)
			}
			select {
			case s.answers <- v:
			default:
			}
		}
	}
}

// wait returns the next answer of a kind; false: none came in time.
func (s *session) wait(op string, atMost time.Duration) (answer, bool) {
	t := time.NewTimer(atMost)
	defer t.Stop()
	for {
		select {
		case v := <-s.answers:
			if v.Op == op {
				return v, true
			}
		case <-s.ended:
			return answer{}, false
		case <-t.C:
			return answer{}, false
		}
	}
}

// readFrame reads one frame of a server.
func readFrame(r *bufio.Reader) (first byte, payload []byte, err error) {
	var h [10]byte
	if _, err := io.ReadFull(r, h[:2]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1] & 127)
	switch n {
	case 126:
		_, err = io.ReadFull(r, h[2:4])
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(r, h[2:10])
		n = binary.BigEndian.Uint64(h[2:])
	}
	if err == nil && n > maxFrame {
		err = errors.New("a frame that is too large")
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return h[0], payload, err
}

// appendFrame appends a client's frame, masked; first holds the opcode, fin and whatever else.
func appendFrame(dst []byte, first byte, payload []byte) []byte {
	dst = appendHead(dst, first, len(payload), true)
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	dst = append(dst, key[:]...)
	for i, c := range payload {
		dst = append(dst, c^key[i&3])
	}
	return dst
}

// appendHead appends the head of a frame, up to where its key or its payload begins.
func appendHead(dst []byte, first byte, n int, masked bool) []byte {
	m := byte(0)
	if masked {
		m = 0x80
	}
	dst = append(dst, first)
	switch {
	case n < 126:
		return append(dst, m|byte(n))
	case n <= 0xffff:
		return append(dst, m|126, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, m|127), uint64(n))
	}
}
