//go:build !unix

package wsedge

// descriptors is how many connections a process may have where the system sets no limit that can be asked for.
func descriptors() int { return 20_000 }
