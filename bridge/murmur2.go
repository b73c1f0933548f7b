package bridge

// Murmur2 is the hash that Kafka's Java clients put keys into partitions with: Austin Appleby's 32-bit
// MurmurHash2 with the seed 0x9747b28c. Its input is read as little-endian words.
func Murmur2(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// PartitionFor is the partition that Java's default partitioner gives a record with this key, of a topic
// with that many partitions (at least 1). An empty key is hashed as any other; a null key has no place
// of its own, so the caller chooses one and does not ask here.
func PartitionFor(key []byte, partitions int32) int32 {
	return int32(Murmur2(key)&0x7fffffff) % partitions
}
