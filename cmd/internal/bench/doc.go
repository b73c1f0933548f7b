// Package bench measures a Tidewire cluster: what `tidectl bench` and `make bench` run.
//
// On one machine it starts a real Kafka, a cluster of tidewire processes, a program that only writes ready frames
// (the floor) and a small server on the centrifuge library, each alone, puts the same clients and messages on
// each, and compares them run by run. The server under test has processors of its own; the load, Kafka and the
// other nodes share the rest. Against a cluster that runs already it does what can be done from outside.
//
// What clients get is counted as it is timed: a run in which a record was missed or came twice says so.
//
// The load is for Linux: epoll, /proc and sched_setaffinity.
package bench
