package bench

import (
	"bufio"
	"io"
	"math"
	"strconv"
	"strings"
)

// pauses count a node's pauses for the garbage collector, as its histogram tidewire_gc_pause_seconds tells: of
// each bucket its upper bound in seconds and how many were not longer. All nodes have the same buckets.
type pauses []pauseBucket

type pauseBucket struct {
	atMost float64
	count  float64
}

const pauseMark = `tidewire_gc_pause_seconds_bucket{le="`

// parsePauses takes them out of what Prometheus scrapes. A node of an earlier build has none.
func parsePauses(r io.Reader) (p pauses, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), pauseMark)
		if !ok {
			continue
		}
		le, value, _ := strings.Cut(rest, `"} `)
		b := pauseBucket{atMost: math.Inf(1)}
		if le != "+Inf" {
			if b.atMost, err = strconv.ParseFloat(le, 64); err != nil {
				return nil, err
			}
		}
		if b.count, err = strconv.ParseFloat(value, 64); err != nil {
			return nil, err
		}
		p = append(p, b)
	}
	return p, lines.Err()
}

// since are the pauses after an earlier look at the same node; nil if that had other buckets.
func (p pauses) since(before pauses) pauses {
	if len(p) != len(before) {
		return nil
	}
	out := make(pauses, len(p))
	for i, b := range p {
		if b.atMost != before[i].atMost {
			return nil
		}
		out[i] = pauseBucket{b.atMost, b.count - before[i].count}
	}
	return out
}

// millisAtMost is a quantile in milliseconds. What is beyond the last bucket is written as an hour: a report is JSON,
// which knows no infinity.
func millisAtMost(p pauses, q float64) float64 { return 1000 * min(p.quantile(q), 3600) }

// quantile is the bound, in seconds, that a share of the pauses kept to; 0 if there was none.
func (p pauses) quantile(q float64) float64 {
	if len(p) == 0 || p[len(p)-1].count <= 0 {
		return 0
	}
	want := q * p[len(p)-1].count
	for _, b := range p {
		if b.count >= want {
			return b.atMost
		}
	}
	return math.Inf(1)
}
