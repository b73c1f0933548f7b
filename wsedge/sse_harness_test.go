package wsedge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// eventSource reads a stream as the HTML standard has an EventSource do it, and is strict where that is
// lenient: no field that we do not send, nothing after the end.
type eventSource struct {
	t      testing.TB
	conn   net.Conn
	r      *bufio.Reader
	status int
	header http.Header
	lastID string
	retry  []int
}

type event struct {
	name, id string
	message
}

// source asks for a stream. The query is a list of names and values.
func (e *edge) source(lastID string, query ...string) *eventSource {
	e.t.Helper()
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		q.Add(query[i], query[i+1])
	}
	return e.sourceRaw("GET /sse?"+q.Encode()+" HTTP/1.1\r\nHost: "+e.addr+"\r\nAccept: text/event-stream\r\n"+lastIDHeader(lastID)+"\r\n", 0)
}

func lastIDHeader(id string) string {
	if id == "" {
		return ""
	}
	return "Last-Event-ID: " + id + "\r\n"
}

func (e *edge) sourceRaw(request string, readBuffer int) *eventSource {
	e.t.Helper()
	conn := e.connectWith(readBuffer)
	e.t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, request)
	s := &eventSource{t: e.t, conn: conn, r: bufio.NewReader(conn)}
	_ = conn.SetReadDeadline(time.Now().Add(waitTime))
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		e.t.Fatalf("%.60q: %v", request, err)
	}
	s.status, s.header = resp.StatusCode, resp.Header
	return s
}

func (s *eventSource) read() (ev event, err error) {
	var data []string
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(waitTime))
		line, err := s.r.ReadString('\n')
		if err != nil {
			return ev, err
		}
		line = line[:len(line)-1]
		if line == "" {
			if ev.name == "" && data == nil {
				continue // the retry at the beginning
			}
			break
		}
		if strings.ContainsAny(line, "\r\x00") {
			return ev, fmt.Errorf("a line with a control character: %q", line)
		}
		name, value, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			return ev, fmt.Errorf("a line that is no field: %q", line)
		case name == "event" && ev.name == "":
			ev.name = value
		case name == "data" && data == nil:
			data = append(data, value)
		case name == "id" && ev.id == "":
			ev.id = value
		case name == "retry":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return ev, fmt.Errorf("retry: %q", value)
			}
			s.retry = append(s.retry, n)
		default:
			return ev, fmt.Errorf("a field too many or unknown: %q", line)
		}
	}
	if len(data) != 1 {
		return ev, fmt.Errorf("%d lines of data", len(data))
	}
	ev.raw = data[0]
	if err := json.Unmarshal([]byte(ev.raw), &ev.message); err != nil {
		return ev, fmt.Errorf("%w: %q", err, ev.raw)
	}
	if ev.Op != ev.name {
		return ev, fmt.Errorf("event %s with op %s", ev.name, ev.Op)
	}
	if ev.id != "" {
		s.lastID = ev.id
	}
	return ev, nil
}

// next returns the next event but for heartbeats.
func (s *eventSource) next() event {
	s.t.Helper()
	for {
		ev, err := s.read()
		if err != nil {
			s.t.Fatalf("event: %v", err)
		}
		if ev.name != "hb" {
			return ev
		}
	}
}

func (s *eventSource) want(name string) event {
	s.t.Helper()
	ev := s.next()
	if ev.name != name {
		s.t.Fatalf("want %s, got %s %s", name, ev.name, ev.raw)
	}
	return ev
}

// error reads the body of a refusal, to which the stream came.
func (s *eventSource) error() message {
	s.t.Helper()
	var m message
	if err := json.NewDecoder(s.r).Decode(&m); err != nil || m.Op != "error" {
		s.t.Fatalf("no error object: %v, %+v", err, m)
	}
	return m
}

// at reads the vector of a subject out of a token.
func at(t testing.TB, token, subject string) map[int32]bridge.Position {
	t.Helper()
	tok, err := parseToken(token)
	if err != nil {
		t.Fatalf("%q: %v", token, err)
	}
	v, ok := tok[subjectHash(subject)]
	if !ok {
		t.Fatalf("%q says nothing of %s", token, subject)
	}
	m := map[int32]bridge.Position{}
	for _, p := range v {
		m[p.Partition] = p.Position
	}
	return m
}
