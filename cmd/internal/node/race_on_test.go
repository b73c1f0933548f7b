//go:build race

package node

// raceEnabled: the race detector makes everything some ten times slower; scenarios take fewer records.
const raceEnabled = true
