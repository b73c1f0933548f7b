package verify

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Breach kinds: each is a promise that was not kept.
type Kind string

const (
	Lost        Kind = "lost"             // Kafka has it, the subscriber should, and does not
	Undeclared  Kind = "loss-undeclared"  // Kafka lost it, and the subscriber was led past it untold
	FalseLoss   Kind = "loss-false"       // declared as lost, and was not
	Repeated    Kind = "repeated"         // the same record twice to one subscriber
	Doubled     Kind = "doubled"          // a retried publish, twice to one subscriber
	OutOfOrder  Kind = "out-of-order"     // a record before one that it comes after
	Disagree    Kind = "disagree"         // one record with two positions, or one position with two records
	Phantom     Kind = "phantom"          // a record that Kafka does not have: of an aborted transaction, or of nobody
	Damaged     Kind = "damaged"          // a value, subject or key that is not the record's
	AckedLost   Kind = "acked-missing"    // an acknowledged publish that is not in Kafka where the ack says
	AckedTwice  Kind = "acked-doubled"    // one message acknowledged as two new records by one coordinator's word
	WrongAnswer Kind = "protocol"         // something that the protocol does not allow
	TooSilent   Kind = "silence-limit"    // over Limits.Silence
	TooLate     Kind = "resume-limit"     // over Limits.Resume
	NeverThere  Kind = "never-subscribed" // a subscriber whose subscription was never made
)

// Kinds lists every kind, in the order of a report.
var Kinds = []Kind{Lost, Undeclared, FalseLoss, Repeated, Doubled, OutOfOrder, Disagree, Phantom, Damaged, AckedLost,
	AckedTwice, WrongAnswer, NeverThere, TooSilent, TooLate}

// Breach is one promise that was not kept.
type Breach struct {
	Kind       Kind          `json:"kind"`
	Count      int           `json:"count"` // of records
	Subscriber string        `json:"subscriber,omitempty"`
	Partition  string        `json:"partition,omitempty"`
	Time       time.Duration `json:"time,omitempty"`
	Detail     string        `json:"detail"`
}

func (b Breach) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s", b.Kind, b.Detail)
	var where []string
	if b.Subscriber != "" {
		where = append(where, b.Subscriber)
	}
	if b.Partition != "" {
		where = append(where, b.Partition)
	}
	if b.Time > 0 {
		where = append(where, "at "+b.Time.Round(time.Millisecond).String())
	}
	if len(where) > 0 {
		fmt.Fprintf(&s, " [%s]", strings.Join(where, ", "))
	}
	return s.String()
}

// maxBreaches bounds the breaches of one kind that a report tells in full; it counts them all.
const maxBreaches = 50

// Report is what Judge finds in a history.
type Report struct {
	// Breaches are told in full up to a bound for each kind; Counts counts the records of all.
	Breaches []Breach     `json:"breaches"`
	Counts   map[Kind]int `json:"counts"`
	// Notes are what a reader should know and is no breach of a promise.
	Notes []string `json:"notes,omitempty"`

	Records     int `json:"records"` // in Kafka at the end
	Removed     int `json:"removed"` // taken out of Kafka during the run
	Aborted     int `json:"aborted"`
	Published   int `json:"published"`
	Acked       int `json:"acked"`
	Retried     int `json:"retried"`    // publishes sent more than once
	Duplicates  int `json:"duplicates"` // acks that said so
	Subscribers int `json:"subscribers"`
	Delivered   int `json:"delivered"`
	Declared    int `json:"declared_lost"` // records that were lost and said to be
	Disconnects int `json:"disconnects"`
	Resumes     int `json:"resumes"`

	// Pending counts those of the lost records that may only be late: nothing after them has come.
	Pending int `json:"pending"`

	// TwiceInKafka counts messages that Kafka took twice because the answer to the first was lost with its
	// coordinator: subscribers must get them once.
	TwiceInKafka int `json:"twice_in_kafka"`

	Silence  Silence   `json:"longest_silence"`
	Silences []Silence `json:"silences"` // the longest ones, longest first
	// ToResume is from a disconnect to the next subscription, ToCatchUp to the end of what was missed, by
	// what ended the connection; "all" is over all causes.
	ToResume  map[string]Percentiles `json:"to_resume"`
	ToCatchUp map[string]Percentiles `json:"to_catch_up"`
	// Unended counts the disconnects after which no subscription came in the time that was recorded.
	Unended int `json:"unended"`
}

// Silence is a time in which a record that was in Kafka waited for a subscriber whose node lived.
type Silence struct {
	For        time.Duration `json:"for"`
	From       time.Duration `json:"from"`
	Subscriber string        `json:"subscriber"`
	Node       string        `json:"node"`
	Partition  string        `json:"partition"`
}

// Percentiles of some durations.
type Percentiles struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50"`
	P90   time.Duration `json:"p90"`
	P99   time.Duration `json:"p99"`
	Max   time.Duration `json:"max"`
}

func percentiles(d []time.Duration) Percentiles {
	if len(d) == 0 {
		return Percentiles{}
	}
	d = slices.Sorted(slices.Values(d))
	at := func(p int) time.Duration { return d[(len(d)*p-1)/100] } // the smallest with p% at or below it
	return Percentiles{Count: len(d), P50: at(50), P90: at(90), P99: at(99), Max: d[len(d)-1]}
}

// Clean says that no promise was broken.
func (r *Report) Clean() bool { return len(r.Counts) == 0 }

// breach notes one; n is the number of records it is about.
func (r *Report) breach(n int, b Breach) {
	b.Count = n
	if r.Counts == nil {
		r.Counts = map[Kind]int{}
	}
	r.Counts[b.Kind] += n
	told := 0
	for _, other := range r.Breaches {
		if other.Kind == b.Kind {
			told++
		}
	}
	if told < maxBreaches {
		r.Breaches = append(r.Breaches, b)
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	ms := func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
	row("records in Kafka", "%d (%d removed meanwhile, %d aborted)", r.Records, r.Removed, r.Aborted)
	row("publishes", "%d, %d acked, %d sent more than once, %d acks said duplicate, %d twice in Kafka",
		r.Published, r.Acked, r.Retried, r.Duplicates, r.TwiceInKafka)
	row("subscribers", "%d, %d records delivered, %d rightly declared lost", r.Subscribers, r.Delivered, r.Declared)
	row("disconnects", "%d, %d resumed, %d not by the end", r.Disconnects, r.Resumes, r.Unended)
	if r.Silence.For > 0 {
		row("longest silence", "%s from %s (%s on %s, %s)", ms(r.Silence.For), ms(r.Silence.From), r.Silence.Subscriber, r.Silence.Node, r.Silence.Partition)
	}
	for _, m := range []struct {
		name string
		of   map[string]Percentiles
	}{{"time to resume", r.ToResume}, {"time to catch up", r.ToCatchUp}} {
		for _, cause := range sortedKeys(m.of) {
			p := m.of[cause]
			row(m.name+", "+cause, "median %s, 90%% %s, 99%% %s, longest %s of %d", ms(p.P50), ms(p.P90), ms(p.P99), ms(p.Max), p.Count)
		}
	}
	for _, n := range r.Notes {
		row("note", "%s", n)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Clean() {
		_, err := fmt.Fprintln(w, "clean: nothing lost, repeated, out of order or wrong")
		return err
	}
	fmt.Fprintln(w, "BREACHES")
	for _, k := range Kinds {
		if r.Counts[k] > 0 {
			fmt.Fprintf(w, "  %s: %d\n", k, r.Counts[k])
		}
	}
	var err error
	for _, b := range r.Breaches {
		_, err = fmt.Fprintln(w, "  "+b.String())
	}
	return err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
