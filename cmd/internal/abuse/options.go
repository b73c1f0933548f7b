package abuse

import (
	"errors"
	"fmt"
	"time"
)

// Options say what to run. The zero value of each number means its default.
type Options struct {
	Tidewire string   // path of the program
	Attacker []string // command that runs RunAttacker; the target is appended
	Dir      string   // for logs and data
	Kafka    string   // release line; empty: 4
	Only     string   // expression for whole names of attacks; empty: all

	Clients int           // honest ones; 0: 1,000
	Rate    int           // records a second to them in all; 0: 200
	Attack  time.Duration // of each; 0: 15 s
	Quiet   time.Duration // before the first and after the last; 0: 30 s
	Warmup  time.Duration // before anything is measured; 0: 8 s
	Memory  int64         // bytes that a node may have resident; 0: 512 MiB

	Progress func(format string, args ...any)
}

// ErrOptions says that options are wrong; nothing was started.
var ErrOptions = errors.New("wrong options")

func (o *Options) fill() error {
	setDefault(&o.Kafka, "4")
	setDefault(&o.Clients, 1000)
	setDefault(&o.Rate, 200)
	setDefault(&o.Attack, 15*time.Second)
	setDefault(&o.Quiet, 30*time.Second)
	setDefault(&o.Warmup, 8*time.Second)
	setDefault(&o.Memory, 512<<20)
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	attacks, err := Select(o.Only)
	switch {
	case err != nil:
		return fmt.Errorf("%w: the attacks: %w", ErrOptions, err)
	case len(attacks) == 0:
		return fmt.Errorf("%w: no attack matches %q", ErrOptions, o.Only)
	case o.Clients < keys || o.Rate < 10 || o.Rate > 10000:
		return fmt.Errorf("%w: %d honest clients and %d records a second: want %d and 10 at least, 10,000 records at most", ErrOptions, o.Clients, o.Rate, keys)
	case o.Attack < leastWindows*window || o.Quiet < leastWindows*window || o.Warmup < 0:
		return fmt.Errorf("%w: an attack and a quiet phase take %v at least", ErrOptions, leastWindows*window)
	case o.Memory < 256<<20:
		return fmt.Errorf("%w: a node needs a bound of 256 MiB for its memory at least", ErrOptions)
	}
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

const (
	// keys of the honest clients' records.
	keys = 100
	// window is how long honest clients' latencies are put together.
	window = time.Second
	// leastWindows is how many make a phase that says something.
	leastWindows = 3
)

// slack is how much more a node may hold after an attack than before the first. Connections to Kafka and the other nodes come and
// go: Raft keeps up to three for each other node and group.
var slack = Held{Goroutines: 64, Descriptors: 64}

// kernelBytes is by how much the kernel's memory for sockets may grow: a few hundred readers that read nothing at what a
// node lets each have there, and as much again for how the kernel keeps it.
const kernelBytes = 256 << 20

// userPublishes is how many publishes a second of one user a node takes.
const userPublishes = 50

// replayBytes is how many bytes a second a node reads from Kafka for those who resume.
const replayBytes = 8 << 20

// cacheBytes is each node's budget: less than what the archive holds, so that who goes back to its beginning is served
// from Kafka.
const cacheBytes = 32 << 20
