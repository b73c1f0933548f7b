package faults

import "slices"

// Scenarios returns all of them, in the order in which they are run.
func Scenarios() []Scenario {
	all := slices.Concat(nodeScenarios(), networkScenarios(), kafkaScenarios(), clientScenarios(), speedScenarios())
	for i := range all {
		if all[i].Nodes == 0 {
			all[i].Nodes = 3
		}
		if all[i].Partitions == 0 {
			all[i].Partitions = 6
		}
	}
	return all
}
