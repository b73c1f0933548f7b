package abuse

import (
	"slices"
	"time"
)

// Window is a stretch of time: how many records honest clients got in it, and how long 99% of them took at most.
type Window struct {
	Records int           `json:"records"`
	P99     time.Duration `json:"p99_ns"`
}

// sample is how long a record took from its making to a client.
type sample struct {
	at   time.Time // it arrived
	took time.Duration
}

// cut puts samples into windows by when they arrived; a last piece shorter than a window is part of the one before.
// A window in which nothing arrived stays in, with no records: silence is the worst that can be.
func cut(samples []sample, from, to time.Time, window time.Duration) []Window {
	n := max(1, int(to.Sub(from)/window))
	took := make([][]time.Duration, n)
	for _, s := range samples {
		i := min(max(0, int(s.at.Sub(from)/window)), n-1)
		took[i] = append(took[i], s.took)
	}
	out := make([]Window, n)
	for i, d := range took {
		slices.Sort(d)
		out[i].Records = len(d)
		if len(d) > 0 {
			out[i].P99 = d[(len(d)*99+99)/100-1]
		}
	}
	return out
}

// Spread is the median of windows' p99, the least and the greatest of them. Windows without records count as silent: their
// records took longer than the window, how long is not known, so all of the window is taken.
type Spread struct {
	Median time.Duration `json:"median_ns"`
	Least  time.Duration `json:"least_ns"`
	Most   time.Duration `json:"most_ns"`
}

func spread(windows []Window, silence time.Duration) Spread {
	var p []time.Duration
	for _, w := range windows {
		if w.Records == 0 {
			w.P99 = silence
		}
		p = append(p, w.P99)
	}
	if len(p) == 0 {
		return Spread{}
	}
	slices.Sort(p)
	// Of an even number the greater of the two in the middle.
	return Spread{Median: p[len(p)/2], Least: p[0], Most: p[len(p)-1]}
}
