// Package faults breaks a Tidewire cluster in every way that is known to break such things, and has what
// its clients saw judged.
//
//	Runner ─▶ Network ─▶ hosts: 3 Kafka brokers, 3 or 5 tidewire nodes (real processes)
//	   │                   ▲
//	   ├─▶ Scenario ───────┘ kills, stops, cuts, delays, by a seeded schedule
//	   └─▶ verify ─▶ load through the cluster ─▶ History ─▶ Judge
//
// A scenario has a name and a seed; the two together are its schedule, so that a failure can be run again
// (as far as a machine's timing lets it: the schedule is the same, what it meets need not be). Every
// process logs into a file of the run's folder, which is kept if the run fails.
//
// Each process has a network namespace of its own where that is allowed, and a port of 127.0.0.1 behind
// proxies where it is not. See Network.
package faults
