package bench

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1/128 of their value wide, so that every quantile is exact
// to 0.8% from a nanosecond to centuries, at 60 KB. The shape is that of HdrHistogram; the library's costs
// a bounds check and two function calls a value more, in the one loop of this program that must be cheap.
//
// It belongs to one goroutine. Negative durations count as zero.
type histogram struct {
	counts [(64 - histBits) << histBits]uint64
	n      uint64
	max    int64
	neg    uint64 // negative ones: the clocks of the two ends differ
}

const histBits = 7

func bucketOf(v uint64) int {
	if v < 1<<histBits {
		return int(v)
	}
	shift := bits.Len64(v) - histBits - 1
	return shift<<histBits + int(v>>shift)
}

// bucketTop is the largest value of a bucket.
func bucketTop(i int) uint64 {
	if i < 2<<histBits {
		return uint64(i)
	}
	shift := i>>histBits - 1
	return (uint64(i-shift<<histBits)+1)<<shift - 1
}

func (h *histogram) add(d int64) {
	if d < 0 {
		h.neg++
		d = 0
	}
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// merge adds what o counted.
func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.neg += o.neg
	h.max = max(h.max, o.max)
}

// quantile returns the smallest duration that at least a share q, 0 to 1, of the values do not exceed; zero if
// there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := max(1, uint64(q*float64(h.n)+0.999999))
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= want {
			return time.Duration(min(bucketTop(i), uint64(h.max)))
		}
	}
	return time.Duration(h.max)
}
