package bench

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// chart is a plot of horizontal bars, in groups.
type chart struct {
	file  string // without folder
	title string
	unit  string
	bars  []bar
}

type bar struct {
	group  string // a heading stands where it changes
	label  string
	class  string // its colour: a server's name
	spread Spread
}

// svgStyle has colours that can be read on white and on black; text and lines take their colour from what the
// reader prefers, also where the plot is an image in a page.
const svgStyle = `text{font:13px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600}.note{fill:#59636e}
.axis{stroke:#818b98;stroke-width:1}.whisker{stroke:#1f2328;stroke-width:1.5}
.tidewire{fill:#1f77d0}.floor{fill:#8a939d}.centrifuge{fill:#d9730d}.consumer{fill:#2f9e55}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.whisker{stroke:#e6edf3}}`

const (
	svgWidth  = 760
	svgLeft   = 130 // of the labels
	svgRight  = 190 // for the figures
	barHeight = 18
	rowHeight = 24
)

// write writes the plot as SVG.
func (c *chart) write(w io.Writer) error {
	var b strings.Builder
	most := 0.0
	for _, bar := range c.bars {
		most = max(most, bar.spread.Max)
	}
	if most == 0 {
		most = 1
	}
	scale := float64(svgWidth-svgLeft-svgRight) / most
	y := 24
	fmt.Fprintf(&b, `<text class="head" x="8" y="%d">%s</text>`+"\n", y, html.EscapeString(c.title))
	y += 10
	top, group := y, ""
	for _, bar := range c.bars {
		if bar.group != group {
			group = bar.group
			y += rowHeight
			fmt.Fprintf(&b, `<text class="note" x="8" y="%d">%s</text>`+"\n", y, html.EscapeString(group))
			y += 8
		}
		mid := y + barHeight/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", svgLeft-8, mid+5, html.EscapeString(bar.label))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", bar.class, svgLeft, y, max(1, bar.spread.Median*scale), barHeight)
		if bar.spread.Runs > 1 {
			fmt.Fprintf(&b, `<path class="whisker" d="M%.1f %dV%dM%.1f %dH%.1fM%.1f %dV%d"/>`+"\n",
				svgLeft+bar.spread.Min*scale, mid-4, mid+4, svgLeft+bar.spread.Min*scale, mid, svgLeft+bar.spread.Max*scale, svgLeft+bar.spread.Max*scale, mid-4, mid+4)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", svgLeft+max(bar.spread.Median, bar.spread.Max)*scale+8, mid+5, html.EscapeString(strings.TrimSpace(bar.spread.String()+" "+c.unit)))
		y += rowHeight
	}
	fmt.Fprintf(&b, `<path class="axis" d="M%d %dV%d"/>`+"\n", svgLeft, top+8, y)
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n<style>%s</style>\n%s</svg>\n",
		svgWidth, y+12, svgWidth, y+12, html.EscapeString(c.title), svgStyle, b.String())
	return err
}

// charts are the plots of a report; those without figures are left out.
func (r *Report) charts() []chart {
	var out []chart
	byServer := func(file, title, name string, scenarios ...string) {
		c := chart{file: file, title: title, unit: metric(name).Unit}
		for _, sc := range scenarios {
			for _, server := range serverOrder {
				if s, ok := r.spread(sc, name, server); ok {
					class, _, _ := strings.Cut(server, "+")
					c.bars = append(c.bars, bar{sc, server, class, s})
				}
			}
		}
		if len(c.bars) > 0 {
			out = append(out, c)
		}
	}
	byServer("fanout-cpu.svg", "CPU a delivered message, 1 subject to 1,000 subscribers", "cpu_us", "fanout-50", "fanout-200", "fanout-1000", "fanout-max")
	byServer("fanout-max.svg", "Messages delivered a second on one core, 1 subject to 1,000 subscribers", "rate", "fanout-max")
	byServer("keys-cpu.svg", "CPU a delivered message, one key a client", "cpu_us", "keys-5000", "keys-20000")
	byServer("keys-p99.svg", "Latency, 99%, one key a client", "p99_ms", "keys-5000", "keys-20000")
	byServer("idle.svg", "Memory a connection with one subscription", "kb_conn", "idle-10000", "idle-100000")
	byServer("storm.svg", "10,000 clients thrown out at once: until all are subscribed again", "resume_s", "storm")
	byServer("secure-cpu.svg", "TLS and tokens: CPU a delivered message, 1 subject to 1,000 subscribers", "cpu_us", "secure-50", "secure-200")
	byServer("secure-p99.svg", "TLS and tokens: latency, 99%, 1 subject to 1,000 subscribers", "p99_ms", "secure-50", "secure-200")
	byServer("secure-idle.svg", "TLS and tokens: memory a connection with one subscription", "kb_conn", "secure-idle")
	c := chart{file: "latency.svg", title: "From Kafka to a subscriber, 1,000 records/s, beside a plain consumer", unit: "ms"}
	for _, q := range []struct{ name, group string }{{"p50_ms", "median"}, {"p99_ms", "99%"}} {
		if s, ok := r.spread("latency", q.name, ServerConsumer); ok {
			c.bars = append(c.bars, bar{q.group, ServerConsumer, ServerConsumer, s})
		}
		for _, node := range []string{"n1", "n2", "n3"} {
			if s, ok := r.spread("latency", node+"_"+q.name, ServerTidewire); ok {
				c.bars = append(c.bars, bar{q.group, node, ServerTidewire, s})
			}
		}
	}
	if len(c.bars) > 0 {
		out = append(out, c)
	}
	return out
}

// spread finds a figure.
func (r *Report) spread(scenario, name, server string) (Spread, bool) {
	for _, o := range r.Outcomes {
		for _, f := range o.Figures {
			if o.Scenario == scenario && f.Metric.Name == name {
				s, ok := f.Servers[server]
				return s, ok
			}
		}
	}
	return Spread{}, false
}
