package tidewire

import (
	"math/rand/v2"
	"time"
)

// backoff is exponential backoff with full jitter: the n-th wait is uniform in [0, min(max, base·2ⁿ)),
// so that clients thrown off together do not return together.
type backoff struct {
	base, max time.Duration
	attempt   int
}

// next is how long to wait now, never less than floor (the server's retry_ms; zero if it gave none).
func (b *backoff) next(floor time.Duration) time.Duration {
	ceiling := b.max
	if b.attempt < 30 { // beyond that the shift would overflow, and base·2³⁰ is over any max
		ceiling = min(b.max, b.base<<b.attempt)
		b.attempt++
	}
	wait := time.Duration(rand.Int64N(int64(ceiling) + 1))
	return max(wait, floor)
}

func (b *backoff) reset() { b.attempt = 0 }
