package kafkaio

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// Reach knows which brokers this node can reach now, also while it reads nothing from them: a coordinator that
// cannot reach the brokers that lead its partitions should leave them to a node that can, which must be known
// before it has them.
//
// One goroutine a broker asks it, on a connection of its own, for nothing but an answer. A broker is reached
// while the last answer is to a question of at most reachSilence ago; it does not matter how it fails to
// answer: a broker that is cut off, hangs or refuses connections is given up after the same time, and so
// by all nodes at about the same time when it is away for all of them.
type Reach struct {
	client *Client
	topics *Topics
	group  func(bridge.TopicPartition) bridge.GroupID
	log    zerolog.Logger

	silence time.Duration // how long a broker may leave questions unanswered: reachSilence

	probes map[string]*probe // by address; owned by Run
	wg     sync.WaitGroup
	now    atomic.Pointer[reached]
}

const (
	// reachEvery is the period of the questions.
	reachEvery = 250 * time.Millisecond
	// reachSilence is how long a broker may leave them unanswered. Brokers pause for their garbage.
	reachSilence = 1500 * time.Millisecond
	// reachLook is how often the answers are looked at.
	reachLook = 100 * time.Millisecond
)

// reached is what is known at one moment.
type reached struct {
	any   bool // a broker answers
	unfit map[bridge.GroupID]bool
}

// probe asks one broker.
type probe struct {
	addr     string
	patience time.Duration
	stop     context.CancelFunc

	mu       sync.Mutex
	answered time.Time // when the last question that was answered was asked

	silent bool // owned by Reach.Run
}

// NewReach returns a Reach that needs topics to run, and reaches nothing until Run runs. group says which group
// a partition belongs to.
func NewReach(client *Client, topics *Topics, group func(bridge.TopicPartition) bridge.GroupID) *Reach {
	r := &Reach{
		client: client, topics: topics, group: group, silence: reachSilence,
		log:    client.cfg.Log.With().Str("component", "kafka-reach").Logger(),
		probes: map[string]*probe{},
	}
	r.now.Store(&reached{})
	return r
}

// Fit says whether this node reaches a broker at all, and the leaders of all partitions of the group that have
// one: what nobody leads nobody can read. It may be called from any goroutine, and returns at once.
func (r *Reach) Fit(g bridge.GroupID) bool {
	now := r.now.Load()
	return now.any && !now.unfit[g]
}

// Run asks until ctx ends, and returns when all questions have ended.
func (r *Reach) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer r.wg.Wait()
	defer cancel()
	t := time.NewTicker(reachLook)
	defer t.Stop()
	for {
		r.follow(ctx)
		r.now.Store(r.look(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// follow asks those brokers that the cluster has now.
func (r *Reach) follow(ctx context.Context) {
	addrs := r.topics.BrokerAddrs()
	for _, addr := range addrs {
		if r.probes[addr] == nil {
			ctx, cancel := context.WithCancel(ctx)
			p := &probe{addr: addr, stop: cancel, patience: r.silence}
			r.probes[addr] = p
			r.wg.Go(func() { p.run(ctx, r.client) })
		}
	}
	for addr, p := range r.probes {
		if !slices.Contains(addrs, addr) {
			p.stop()
			delete(r.probes, addr)
		}
	}
}

// look works out what the answers mean.
func (r *Reach) look(now time.Time) *reached {
	out := &reached{}
	silent := map[string]bool{}
	for addr, p := range r.probes {
		if at := p.last(); now.Sub(at) < r.silence {
			out.any = true
			if p.silent {
				p.silent = false
				r.log.Info().Str("broker", addr).Msg("the broker can be reached again")
			}
			continue
		} else if !p.silent && !at.IsZero() {
			p.silent = true
			r.log.Warn().Str("broker", addr).Msg("the broker cannot be reached")
		}
		silent[addr] = true
	}
	if out.any && len(silent) > 0 {
		out.unfit = map[bridge.GroupID]bool{}
		r.topics.eachLeader(func(tp bridge.TopicPartition, addr string) {
			if silent[addr] {
				out.unfit[r.group(tp)] = true
			}
		})
	}
	return out
}

func (p *probe) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered
}

// run asks until ctx ends.
func (p *probe) run(ctx context.Context, client *Client) {
	var conn *wire
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for fails := 0; ; {
		asked := time.Now()
		var err error
		conn, err = p.ask(ctx, client, conn)
		wait := reachEvery
		if err == nil {
			fails = 0
			p.mu.Lock()
			p.answered = asked
			p.mu.Unlock()
		} else {
			fails++
			wait = max(wait, readBackoff(fails))
		}
		if ctx.Err() != nil || sleep(ctx, wait-time.Since(asked)) != nil {
			return
		}
	}
}

// ask asks once, on conn or a new connection, and returns the connection to ask on again; nil after an error.
func (p *probe) ask(ctx context.Context, client *Client, conn *wire) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	if conn == nil {
		var err error
		if conn, err = openWire(ctx, client, p.addr); err != nil {
			return nil, err
		}
	}
	if _, err := conn.metadataVersion(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
