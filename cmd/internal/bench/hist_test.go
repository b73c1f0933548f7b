package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramAgainstSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, spread := range []float64{1, 5, 15, 30} {
		var h histogram
		var all []int64
		for range 20000 {
			v := int64(math.Exp(r.Float64() * spread))
			h.add(v)
			all = append(all, v)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[max(0, int(math.Ceil(q*float64(len(all))))-1)]
			got := int64(h.quantile(q))
			if got < want || float64(got) > float64(want)*(1+1.0/128)+1 {
				t.Errorf("spread %v, quantile %v: %d, want %d", spread, q, got, want)
			}
		}
		if h.max != all[len(all)-1] || h.quantile(1) != time.Duration(h.max) {
			t.Errorf("worst %d, %v, want %d", h.max, h.quantile(1), all[len(all)-1])
		}
	}
}

func TestHistogramBuckets(t *testing.T) {
	for i := range len(histogram{}.counts) {
		if top := bucketTop(i); bucketOf(top) != i || top < math.MaxInt64 && bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in %d, and the next in %d", i, top, bucketOf(top), bucketOf(top+1))
		}
		if bucketTop(i) >= math.MaxInt64 {
			break
		}
	}
	var h histogram
	h.add(math.MaxInt64)
	h.add(-5)
	if h.n != 2 || h.neg != 1 || h.quantile(0.5) != 0 || h.quantile(1) != math.MaxInt64 {
		t.Errorf("%d values, %d negative, %v, %v", h.n, h.neg, h.quantile(0.5), h.quantile(1))
	}
}

func TestHistogramMerge(t *testing.T) {
	var a, b, both histogram
	for i := range int64(1000) {
		if both.add(i * 1000); i%3 == 1 {
			a.add(i * 1000)
		} else {
			b.add(i * 1000)
		}
	}
	a.merge(&b)
	if a != both {
		t.Error("merging two is not adding all to one")
	}
	if (&histogram{}).quantile(0.5) != 0 {
		t.Error("an empty one has a median")
	}
}
