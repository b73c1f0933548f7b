package abuse

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// An honest client notices whatever a node could do wrong to it.
func TestHonestClientsNotice(t *testing.T) {
	msg := func(p, e, s, n int) string {
		return fmt.Sprintf(`{"op":"msg","subject":"/prices/k0","pos":[%d,%d,%d],"ts":1,"data":{"t":1,"n":%d}}`, p, e, s, n)
	}
	for name, c := range map[string]struct {
		says  []string
		close bool
		want  map[Fault]int
	}{
		"all is well":          {[]string{msg(0, 1, 5, 1), `{"op":"hb"}`, `{"op":"live"}`, msg(0, 1, 7, 2), msg(0, 2, 0, 3)}, false, nil},
		"the first is missing": {[]string{msg(0, 1, 5, 2), msg(0, 1, 6, 3)}, false, map[Fault]int{Lost: 1}},
		"one is missing":       {[]string{msg(0, 1, 5, 1), msg(0, 1, 6, 3)}, false, map[Fault]int{Lost: 1}},
		"one comes twice":      {[]string{msg(0, 1, 5, 1), msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{Repeated: 1, OutOfOrder: 1}},
		"positions go back":    {[]string{msg(0, 1, 5, 1), msg(0, 1, 4, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{OutOfOrder: 1}},
		"epochs go back":       {[]string{msg(0, 2, 5, 1), msg(0, 1, 6, 2), msg(0, 2, 7, 3)}, false, map[Fault]int{OutOfOrder: 1}},
		"another partition":    {[]string{msg(0, 1, 5, 1), msg(1, 1, 6, 2), msg(1, 1, 7, 3)}, false, map[Fault]int{OutOfOrder: 1}},
		"a gap":                {[]string{`{"op":"gap","reason":"truncated"}`, msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{Lost: 1}},
		"it is unsubscribed":   {[]string{`{"op":"unsubbed"}`, msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{Lost: 1}},
		"no JSON":              {[]string{`{`, msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{Foreign: 1}},
		"somebody's record":    {[]string{`{"op":"msg","pos":[0,1,1],"text":"x"}`, msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, false, map[Fault]int{Foreign: 1}},
		"thrown out":           {[]string{msg(0, 1, 5, 1), msg(0, 1, 6, 2), msg(0, 1, 7, 3)}, true, map[Fault]int{ThrownOut: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				defer func() { _ = conn.CloseNow() }()
				if _, _, err := conn.Read(r.Context()); err != nil {
					return
				}
				for _, s := range append([]string{`{"op":"welcome"}`, `{"op":"subbed","id":1,"at":[]}`}, c.says...) {
					if conn.Write(r.Context(), websocket.MessageText, []byte(s)) != nil {
						return
					}
				}
				if c.close {
					_ = conn.Close(4008, "slow")
					return
				}
				_, _, _ = conn.Read(r.Context()) // until it leaves
			}))
			defer srv.Close()
			crowd, err := openCrowd(t.Context(), 1, keys, []string{strings.TrimPrefix(srv.URL, "http://")}, "prices", func(string) (string, error) { return "t", nil })
			if err != nil {
				t.Fatal(err)
			}
			defer crowd.close()
			ctx, cancel := context.WithTimeout(t.Context(), waitTime)
			defer cancel()
			all := make([]uint64, keys)
			if all[0] = 3; crowd.complete(ctx, all) > 0 {
				t.Fatal("it did not get the last record")
			}
			got := map[Fault]int{}
			for {
				_, faults, _ := crowd.take(time.Now(), time.Second)
				for f, n := range faults {
					got[f] += n
				}
				if maps.Equal(got, c.want) || !c.close || ctx.Err() != nil { // being thrown out is noticed after the last record
					break
				}
				time.Sleep(time.Millisecond)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// Who cannot connect or subscribe is an error, which says why.
func TestHonestClientsRefused(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	c, err := openCrowd(t.Context(), 5, keys, []string{strings.TrimPrefix(srv.URL, "http://")}, "prices", func(string) (string, error) { return "t", nil })
	if err == nil || c != nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v, %v", c, err)
	}
}

func TestTraces(t *testing.T) {
	text := `# HELP x y
tidewire_limited_total{limit="frames"} %d
tidewire_cluster_strangers_total %d
tidewire_connections 1000
go_goroutines 50
go_gc_duration_seconds{quantile="0"} 1e-05
`
	var looks []map[string]float64
	for i := range 2 {
		m, err := parseMetrics(strings.NewReader(fmt.Sprintf(text, 5+3*i, 7+i)))
		if err != nil {
			t.Fatal(err)
		}
		looks = append(looks, m)
	}
	got := traces(looks[:1], looks[1:], map[string]float64{"tidewire_blocked_connections": 12, "tidewire_handshakes": 0, "go_goroutines": 99})
	want := map[string]int64{"limit frames": 3, "rise tidewire_cluster_strangers_total": 1, "peak tidewire_blocked_connections": 12}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
