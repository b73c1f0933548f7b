package abuse

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Fault is what an honest client must not see.
type Fault string

// The faults.
const (
	ThrownOut  Fault = "thrown out"
	Lost       Fault = "lost"
	Repeated   Fault = "repeated"
	OutOfOrder Fault = "out of order"
	Foreign    Fault = "not understood"
)

// Phase is a stretch of a run: an attack, or quiet.
type Phase struct {
	Attack       string           `json:"attack,omitempty"` // its name; empty: quiet
	Windows      []Window         `json:"windows"`
	Spread       Spread           `json:"p99"`
	Faults       map[Fault]int    `json:"faults,omitempty"`
	Details      []string         `json:"details,omitempty"`
	Did          map[string]int64 `json:"attackers_counted,omitempty"`
	Traces       map[string]int64 `json:"nodes_counted,omitempty"` // by the names that Attack.Meets has
	Memory       []int64          `json:"memory,omitempty"`        // the most that each node had resident, bytes
	Kernel       int64            `json:"kernel,omitempty"`        // by how much the kernel's memory for TCP, of all sockets here, grew meanwhile, bytes
	NodesCPU     float64          `json:"nodes_cores"`             // processors that all nodes together used
	AttackersCPU float64          `json:"attackers_cores"`         // and the attackers
	// After an attack: goroutines and descriptors of each node when they were back, or when the wait for that was over.
	After    []Held        `json:"after,omitempty"`
	Returned time.Duration `json:"returned_ns,omitempty"` // how long that took
	Broken   string        `json:"broken,omitempty"`      // why the phase says nothing: a node or an attacker ended
}

// Held is what a node holds.
type Held struct {
	Goroutines  int `json:"goroutines"`
	Descriptors int `json:"descriptors"`
}

// Bounds are what a run is judged by.
type Bounds struct {
	Ratio   float64       `json:"ratio"`   // of p99 under an attack to that in quiet, at most
	Memory  int64         `json:"memory"`  // bytes that a node may have resident
	Kernel  int64         `json:"kernel"`  // and by how much an attack may make the kernel's memory for sockets grow
	Slack   Held          `json:"slack"`   // how much more a node may hold after an attack than before the first
	Windows int           `json:"windows"` // a phase has at least so many
	Window  time.Duration `json:"window_ns"`
}

// Breach is something that did not hold.
type Breach struct {
	Phase string `json:"phase"`
	What  string `json:"what"`
}

// Judge returns what of a run did not hold; before is what the nodes held before the first attack.
func Judge(phases []Phase, before []Held, b Bounds) (out []Breach) {
	breach := func(p *Phase, format string, args ...any) {
		out = append(out, Breach{p.name(), fmt.Sprintf(format, args...)})
	}
	quiet := Quiet(phases, b.Window)
	attacks := map[string]Attack{}
	for _, a := range Attacks() {
		attacks[a.Name] = a
	}
	attacked := false
	for i := range phases {
		p := &phases[i]
		if p.Broken != "" {
			breach(p, "%s", p.Broken)
		}
		for _, f := range slices.Sorted(maps.Keys(p.Faults)) {
			breach(p, "honest clients: %d × %s", p.Faults[f], f)
		}
		if len(p.Windows) < b.Windows {
			breach(p, "%d windows were measured, %d are the least that says something", len(p.Windows), b.Windows)
		}
		for node, m := range p.Memory {
			if m > b.Memory {
				breach(p, "node %d had %s resident, over %s", node+1, mib(m), mib(b.Memory))
			}
		}
		if p.Kernel > b.Kernel {
			breach(p, "the kernel's memory for sockets grew by %s, over %s", mib(p.Kernel), mib(b.Kernel))
		}
		if p.Attack == "" {
			continue
		}
		attacked = true
		if len(p.Memory) == 0 || len(p.Memory) != len(before) || len(p.After) != len(before) {
			breach(p, "of %d nodes the memory of %d is known, and of %d what they hold after it", len(before), len(p.Memory), len(p.After))
		}
		if quiet.Median > 0 && float64(p.Spread.Median) > b.Ratio*float64(quiet.Median) {
			breach(p, "p99 of honest clients was %s, over %g × the %s in quiet", ms(p.Spread.Median), b.Ratio, ms(quiet.Median))
		}
		for node, h := range p.After[:min(len(p.After), len(before))] {
			if most := before[node].Goroutines + b.Slack.Goroutines; h.Goroutines > most {
				breach(p, "node %d still has %d goroutines, %d before", node+1, h.Goroutines, before[node].Goroutines)
			}
			if most := before[node].Descriptors + b.Slack.Descriptors; h.Descriptors > most {
				breach(p, "node %d still has %d descriptors, %d before", node+1, h.Descriptors, before[node].Descriptors)
			}
		}
		met := false
		for _, trace := range attacks[p.Attack].Meets {
			met = met || p.Did[trace] > 0 || p.Traces[trace] > 0
		}
		if !met {
			breach(p, "it met nothing of what it has to meet (%q): it was no attack", attacks[p.Attack].Meets)
		}
	}
	if quiet.Median <= 0 || !attacked {
		out = append(out, Breach{"all", "there is no quiet phase, or no attack, to compare"})
	}
	return out
}

// Quiet is the spread of all quiet phases' windows.
func Quiet(phases []Phase, window time.Duration) Spread {
	var all []Window
	for _, p := range phases {
		if p.Attack == "" {
			all = append(all, p.Windows...)
		}
	}
	return spread(all, window)
}

func (p *Phase) name() string {
	if p.Attack == "" {
		return "quiet"
	}
	return p.Attack
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
