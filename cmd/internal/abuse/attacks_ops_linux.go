package abuse

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// neverRead has everything sent to clients that take nothing of it.
func neverRead(a *attacker) {
	a.sessions(a.share(300), opening{small: true, mute: true}, func(_ int, s *session) {
		for i, topic := range []string{a.Archive, a.Live} {
			if !s.say(fields{"op": "sub", "id": i + 1, "subject": "/" + topic + "/*", "history": -1}) {
				return
			}
		}
		<-a.ctx.Done()
	})
}

func randomSubs(a *attacker) {
	a.sessions(2, opening{}, func(_ int, s *session) {
		id := 0
		a.pace(2000, func(n int) bool {
			ops := make([]any, n)
			for i := range ops {
				id++
				ops[i] = fields{"op": "sub", "id": id, "subject": "/" + a.Live + "/" + randomKey()}
			}
			a.count("subscriptions asked for", int64(n))
			return s.say(ops...)
		})
	})
}

// replays resumes from the first record of a key, again and again.
func replays(a *attacker) {
	a.sessions(8, opening{}, func(_ int, s *session) {
		a.pace(1, one(func() bool {
			subject := fmt.Sprintf("/%s/k%d", a.Archive, rand.IntN(a.Keys))
			if !s.say(fields{"op": "sub", "id": 1, "subject": subject}) {
				return false
			}
			v, ok := s.wait("subbed", 5*time.Second)
			var at [][3]uint64
			if !ok || json.Unmarshal(v.At, &at) != nil {
				return ok
			}
			for i := range at {
				at[i][2] = 0
			}
			again := s.say(fields{"op": "unsub", "id": 2, "subject": subject}, fields{"op": "sub", "id": 3, "subject": subject, "resume": at})
			a.count("resumes", 1)
			s.wait("unsubbed", 5*time.Second) // the first subscription was live, too
			if _, live := s.wait("live", 10*time.Second); live {
				a.count("replays to the end", 1)
			}
			return again && s.say(fields{"op": "unsub", "id": 4, "subject": subject})
		}))
	})
}

// publishes has one user publish more than his share on every node.
func publishes(a *attacker) {
	const each = 150
	a.sessions(3*len(a.Clients), opening{}, func(i int, s *session) {
		id := 0
		a.pace(each, func(n int) bool {
			ops := make([]any, n)
			for k := range ops {
				id++
				ops[k] = fields{"op": "pub", "id": id, "subject": fmt.Sprintf("/%s/m%d", a.Chat, i), "data": id}
			}
			a.count("publishes", int64(n))
			return s.say(ops...)
		})
	})
}
