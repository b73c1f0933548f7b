package abuse

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
)

func pings(a *attacker) {
	frame := appendFrame(nil, fin|opPing, bytes.Repeat([]byte("p"), 125))
	a.sessions(5, opening{}, func(_ int, s *session) {
		a.pace(2500, func(n int) bool {
			a.count("pings", int64(n))
			return s.write(bytes.Repeat(frame, n))
		})
	})
}

func badFrames(a *attacker) {
	texts := []string{
		`{`, `[]`, `{"op":"no such","id":1}`, `{"op":"sub","id":1,"subject":"no slash"}`, `{"op":"sub","id":-1,"subject":"/` + a.Live + `/k0"}`,
		`{"op":"sub","id":1,"subject":"/` + a.Live + `/a*b/*/*"}`, `{"op":"pub","id":1,"subject":"/` + a.Chat + `/*","data":1}`, "null", "\x00\x01\x02",
		`{"op":"sub","id":1,"subject":"/` + a.Live + `/k0","resume":[[0,1]]}`, `{"op":` + string(bytes.Repeat([]byte("["), 10000)),
	}
	a.sessions(20, opening{}, func(i int, s *session) {
		k := i
		a.pace(200, func(n int) bool {
			var b []byte
			for range n {
				text := []byte(texts[k%len(texts)])
				if k%5000 == 4999 {
					text = []byte("\xff\xfe") // ends the session by itself, with 1007
				}
				b = appendFrame(b, fin|opText, text)
				k++
			}
			a.count("bad frames", int64(n))
			return s.write(b)
		})
	})
}

// fragments sends the first part of a message and then parts without end, of nothing and of something.
func fragments(a *attacker) {
	a.sessions(20, opening{}, func(i int, s *session) {
		part := make([]byte, 0)
		if i%2 == 0 {
			part = bytes.Repeat([]byte("x"), 4000)
		}
		frame := appendFrame(nil, opContinuation, part)
		if !s.write(appendFrame(nil, opText, []byte(`{"op":"`))) {
			return
		}
		a.pace(200, func(n int) bool {
			a.count("fragments", int64(n))
			return s.write(bytes.Repeat(frame, n))
		})
	})
}

// bombs sends small messages that are large when they are unpacked (RFC 7692).
func bombs(a *attacker) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		panic(err) // a level that exists
	}
	_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20)) // into memory
	_ = w.Flush()
	// What was flushed ends with a byte, and refers to nothing before itself: it may be said again and again, which is sooner done
	// than to pack 64 MB.
	all := bytes.Repeat(packed.Bytes(), 64)
	bomb := appendFrame(nil, fin|rsv1|opText, bytes.TrimSuffix(all, []byte{0, 0, 0xff, 0xff}))
	headers := "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
	a.sessionsAt(10, 2, opening{headers: headers}, func(_ int, s *session) {
		if s.write(bomb) {
			a.count("bombs", 1)
		}
	})
}

func wrongMask(a *attacker) {
	text := []byte(`{"op":"ping","id":1}`)
	frame := append(appendHead(nil, fin|opText, len(text), false), text...)
	a.sessionsAt(20, 5, opening{}, func(_ int, s *session) {
		s.write(frame)
	})
}

func reservedBits(a *attacker) {
	text := []byte(`{"op":"ping","id":1}`)
	var frames [][]byte
	for _, first := range []byte{fin | rsv1 | opText, fin | rsv2 | opText, fin | rsv3 | opText, fin | 3, fin | 7, fin | 11, fin | 15, opPing, fin | opContinuation} {
		frames = append(frames, appendFrame(nil, first, text))
	}
	frames = append(frames, appendFrame(nil, fin|opPing, bytes.Repeat([]byte("p"), 126)), appendFrame(nil, fin|opClose, []byte{3}))
	a.sessionsAt(20, 5, opening{}, func(_ int, s *session) {
		s.write(frames[rand.IntN(len(frames))])
	})
}

func randomKey() string { return fmt.Sprintf("%016x", rand.Uint64()) }
