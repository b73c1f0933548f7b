// Package abuse attacks a Tidewire cluster of real processes in the ways a hostile crowd on the Internet would, one
// after the other, and has judged what honest clients felt of it meanwhile. `make abuse` runs it.
//
//	Run ─▶ a real Kafka, 3 tidewire nodes, honest clients ─▶ Phase (quiet, each attack, quiet) ─▶ Report ─▶ Judge
//	  └──▶ attackers: processes of their own, at the lowest priority, each attack at the rate that it states
//
// The attackers share the machine with what they attack. They have the lowest priority and a rate, so that what
// slows honest clients down is what the nodes do about an attack, and not the processor time of the attackers.
//
// It is for Linux: /proc, and addresses of the loopback network that nobody has to set up.
package abuse
