// Package verify proves, or disproves, what Tidewire promises: nothing lost, nothing repeated, nothing out
// of order, whatever dies.
//
//	Driver ─▶ producers, publishers, subscribers ─▶ History ─▶ Judge ─▶ Report
//
// The driver loads a cluster and records what Kafka took and what every client saw. It decides nothing:
// Judge does, a pure function of the recorded history, so that a history can be kept, read by eye and
// judged again, and so that the judge can be shown to find each kind of breach in histories made by hand.
//
// The clients here are written from the protocol alone, apart from clients/go, so that the two cannot
// agree on a mistake; and they drop nothing: what comes twice is recorded twice. One of the publishers is an
// application of clients/go, whose repeats are held to the same promise.
package verify
