package faults

import "slices"

// Scenarios returns all of them, family by family, in the order in which they are run.
func Scenarios() []Scenario {
	var all []Scenario
	for _, family := range []struct {
		name string
		list []Scenario
	}{
		{"Nodes", nodeScenarios()},
		{"Network", networkScenarios()},
		{"Kafka", slices.Concat(kafkaScenarios(), kafkaElectionScenarios())},
		{"Disks", diskScenarios()},
		{"Clients", clientScenarios()},
		{"Change", slices.Concat(changeScenarios(), memberScenarios())},
		{"Speed", speedScenarios()},
	} {
		for _, s := range family.list {
			s.Family = family.name
			if s.Nodes == 0 {
				s.Nodes = 3
			}
			if s.Partitions == 0 {
				s.Partitions = 6
			}
			if s.Copies == 0 {
				s.Copies = kafkaBrokers
			}
			all = append(all, s)
		}
	}
	return all
}

// Slice returns the short ones of a list, one of each family before the second of any: it is cut off by time.
func Slice(list []Scenario) []Scenario {
	var out []Scenario
	for round := 0; ; round++ {
		before := len(out)
		seen := map[string]int{}
		for _, s := range list {
			if !s.Slice {
				continue
			}
			if seen[s.Family] == round {
				out = append(out, s)
			}
			seen[s.Family]++
		}
		if len(out) == before {
			return out
		}
	}
}
