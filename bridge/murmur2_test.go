package bridge

import (
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The values are those of org.apache.kafka.common.utils.UtilsTest.testMurmur2, as Java's signed ints.
func TestMurmur2KnownJavaValues(t *testing.T) {
	for in, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(Murmur2([]byte(in))); got != want {
			t.Errorf("Murmur2(%q) = %d, Java gives %d", in, got, want)
		}
	}
}

// A naive twin: kgo's default partitioner is the Java one too.
func TestPartitionForAsKgo(t *testing.T) {
	part := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		key := make([]byte, rng.IntN(70))
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		n := 1 + rng.Int32N(100)
		if got, want := PartitionFor(key, n), int32(part.Partition(&kgo.Record{Key: key}, int(n))); got != want {
			t.Fatalf("PartitionFor(%x, %d) = %d, kgo gives %d", key, n, got, want)
		}
	}
}
