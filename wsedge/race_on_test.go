//go:build race

package wsedge

const underRace = true
