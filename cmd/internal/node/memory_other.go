//go:build !linux

package node

// machineMemory is not known on other systems: set TIDEWIRE_CACHE_BYTES there.
func machineMemory() int64 { return 0 }
