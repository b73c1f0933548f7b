package abuse

import (
	"net"
	"sync"
	"time"
)

// halfOpen holds as many connections as it can get, each in the middle of its request.
func halfOpen(a *attacker) {
	const all, workers = 20000, 8
	n := a.share(all / workers)
	var mu sync.Mutex
	var held []net.Conn
	a.side(workers, func(int) {
		made := 0
		a.pace(float64(n)/min(5, 0.7*a.For.Seconds()), one(func() bool {
			c, err := a.dial(a.Clients[0], false)
			if err != nil {
				return a.ctx.Err() == nil
			}
			_, _ = c.Write([]byte("GET /ws HTTP/1.1\r\nHost: a\r\n"))
			mu.Lock()
			held = append(held, c)
			mu.Unlock()
			made++
			return made < n
		}))
	})
	<-a.ctx.Done()
	for _, c := range held {
		if alive(c) {
			a.count("held at the end", 1)
		}
		_ = c.Close()
	}
}

// slowHeaders keeps requests going a byte at a time.
func slowHeaders(a *attacker) {
	a.side(a.share(1200), func(i int) {
		a.pace(1, one(func() bool {
			c, err := a.dial(a.Clients[i%len(a.Clients)], false)
			if err != nil {
				return a.ctx.Err() == nil
			}
			defer a.closeWithAttack(c)()
			if _, err := c.Write([]byte("GET /ws HTTP/1.1\r\nHost: a\r\nX-Padding: ")); err != nil {
				return true
			}
			a.pace(1, one(func() bool {
				_, err := c.Write([]byte{'a'})
				return err == nil && alive(c)
			}))
			if a.ctx.Err() == nil {
				a.count("thrown out", 1)
			}
			return a.ctx.Err() == nil
		}))
	})
}

// connects makes sessions and leaves them at once.
func connects(a *attacker) {
	const workers, rate = 20, 1000
	a.side(workers, func(i int) {
		k := i
		a.pace(rate/workers, one(func() bool {
			s, err := a.open(a.Clients[k%len(a.Clients)], opening{})
			k++
			if err == nil {
				_ = s.conn.Close()
			}
			return a.ctx.Err() == nil
		}))
	})
}

// bigTokens shows tokens of a megabyte, which nobody may have to look at.
func bigTokens(a *attacker) {
	const size = 1_000_000
	token := make([]byte, size)
	for i := range token {
		token[i] = "abcdefghijklmnop.-_"[i%19]
	}
	op := appendFrame(nil, fin|opText, append(append([]byte(`{"op":"auth","id":1,"token":"`), token...), `"}`...))
	a.side(2, func(kind int) {
		if kind == 0 {
			a.sessionsAt(5, 2, opening{}, func(_ int, s *session) {
				if s.write(op) {
					a.count("tokens", 1)
					s.wait("error", time.Second)
				}
			})
			return
		}
		a.side(5, func(i int) {
			a.pace(2, one(func() bool {
				c, err := a.dial(a.Clients[i%len(a.Clients)], false)
				if err != nil {
					return a.ctx.Err() == nil
				}
				defer a.closeWithAttack(c)()
				_ = c.SetDeadline(time.Now().Add(dialTime))
				_, _ = c.Write(request("a", string(token), "")) // cut as soon as the limit is passed
				var b [64]byte
				n, _ := c.Read(b[:])
				a.count("answered "+status(string(b[:n])), 1)
				return true
			}))
		})
	})
}
