package bench

import (
	"slices"
	"strings"
	"time"
)

// Report is what came of a bench.
type Report struct {
	Began    time.Time         `json:"began"`
	Took     time.Duration     `json:"took_ns"`
	Machine  map[string]string `json:"machine"` // what it was measured on and with, for the reader
	Settings map[string]string `json:"settings"`
	Samples  []Sample          `json:"samples"`
	Outcomes []Outcome         `json:"outcomes"`
	Problems []string          `json:"problems,omitempty"` // what must be known before a figure is believed
	Failed   []string          `json:"failed,omitempty"`   // what could not be measured, and why
	Cut      bool              `json:"cut,omitempty"`      // ended before its end
}

// Sample is one run of one scenario on one server.
type Sample struct {
	Scenario string             `json:"scenario"`
	Server   string             `json:"server"`
	Run      int                `json:"run"`
	Values   map[string]float64 `json:"values"`
}

// Outcome is a scenario's summary.
type Outcome struct {
	Scenario string    `json:"scenario"`
	About    string    `json:"about"`
	Figures  []Figure  `json:"figures"`
	Verdicts []Verdict `json:"verdicts,omitempty"`
}

// Figure is a metric with each server's spread over the runs, and Tidewire's ratios to the others.
type Figure struct {
	Metric  Metric            `json:"metric"`
	Servers map[string]Spread `json:"servers"`
	// Ratios are Tidewire's value over another server's in the same run; where the other is Tidewire with TLS or
	// tokens, that one's over Tidewire's without.
	Ratios map[string]Spread `json:"ratios,omitempty"`
}

// Spread is the least, middle and greatest of the runs.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
}

// Verdict compares a median with a target.
type Verdict struct {
	Target Target  `json:"target"`
	Value  float64 `json:"value"`
	Met    bool    `json:"met"`
	// MissedBy is how far beyond the bound the value is, as a share of the bound.
	MissedBy float64 `json:"missed_by,omitempty"`
}

// isTidewire says whether a server is Tidewire, with TLS and tokens or without.
func isTidewire(server string) bool {
	name, _, _ := strings.Cut(server, "+")
	return name == ServerTidewire
}

func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	mid := v[n/2]
	if n%2 == 0 {
		mid = (v[n/2-1] + v[n/2]) / 2
	}
	return Spread{v[0], mid, v[n-1], n}
}

// summarize makes the outcomes of the samples, for the scenarios in their order.
func (r *Report) summarize(scenarios []Scenario) {
	r.Outcomes = nil
	for _, sc := range scenarios {
		o := Outcome{Scenario: sc.Name, About: sc.About}
		for _, m := range metrics {
			values := map[string]map[int]float64{} // server to run to value
			for _, s := range r.Samples {
				if v, ok := s.Values[m.Name]; ok && s.Scenario == sc.Name {
					if values[s.Server] == nil {
						values[s.Server] = map[int]float64{}
					}
					values[s.Server][s.Run] = v
				}
			}
			if len(values) == 0 {
				continue
			}
			f := Figure{Metric: m, Servers: map[string]Spread{}, Ratios: map[string]Spread{}}
			for server, runs := range values {
				var all, ratios []float64
				for run, v := range runs {
					all = append(all, v)
					ours, ok := values[ServerTidewire][run]
					if !ok || server == ServerTidewire || m.Better == 0 {
						continue
					}
					over, under := ours, v
					if isTidewire(server) {
						over, under = v, ours
					}
					if under != 0 {
						ratios = append(ratios, over/under)
					}
				}
				f.Servers[server] = spread(all)
				if len(ratios) > 0 {
					f.Ratios[server] = spread(ratios)
				}
			}
			o.Figures = append(o.Figures, f)
		}
		if len(o.Figures) == 0 {
			continue
		}
		for _, t := range sc.Targets {
			if v, ok := judge(t, o.Figures); ok {
				o.Verdicts = append(o.Verdicts, v)
			}
		}
		r.Outcomes = append(r.Outcomes, o)
	}
}

func judge(t Target, figures []Figure) (Verdict, bool) {
	for _, f := range figures {
		if f.Metric.Name != t.Metric {
			continue
		}
		s, ok := f.Servers[ServerTidewire]
		if t.Over != "" {
			s, ok = f.Ratios[t.Over]
		}
		if !ok {
			return Verdict{}, false
		}
		v := Verdict{Target: t, Value: s.Median}
		if v.Met = s.Median >= t.Bound; t.AtMost {
			v.Met = s.Median <= t.Bound
		}
		if !v.Met && t.Bound != 0 {
			v.MissedBy = s.Median/t.Bound - 1
			if !t.AtMost {
				v.MissedBy = -v.MissedBy
			}
		}
		return v, true
	}
	return Verdict{}, false
}
