package replication

import (
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// raftLog lets hashicorp/raft and raft-wal log through zerolog with our keys (component, group). What
// the library says of its normal course is debug here: an election is logged once, by lead.go.
type raftLog struct {
	log  zerolog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLog)(nil)

func newRaftLog(l zerolog.Logger, group bridge.GroupID) *raftLog {
	return &raftLog{log: l.With().Str("component", "raft").Uint16("group", uint16(group)).Logger()}
}

// quiet are messages that the library takes more seriously than they are here.
var quiet = map[string]bool{
	// A nudge that overtook the entry it speaks of (nudge.go), or a follower catching up.
	"failed to get previous log": true,
	// Every repeat while a peer is away; the liveness connection logs its going and coming.
	"failed to appendEntries to": true, "failed to heartbeat to": true, "failed to contact": true,
	"failed to make requestVote RPC": true, "failed to pre-vote RPC": true,
	// A peer closed a connection, or a stranger sent rubbish: counted by the mux.
	"peer has newer term, stopping replication":                true, // an election that went another way
	"unable to get address for server, using fallback address": true, // just added: it is dialled where it was said to be
	// A node that waits to be added, or was removed: it says so itself, and what it asks for in vain is its own affair.
	"no known peers, aborting election": true, "not part of stable configuration, aborting election": true,
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": true,
	"rejecting pre-vote request since node is not in configuration":                                                  true,
	"rejecting vote request since node is not in configuration":                                                      true,
	"failed to decode incoming command":                                                                              true, "failed to flush response": true,
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	var e *zerolog.Event
	switch {
	case level <= hclog.Info && level != hclog.NoLevel, quiet[msg]:
		e = l.log.Debug()
	case level == hclog.Error:
		e = l.log.Error()
	default:
		e = l.log.Warn()
	}
	if e == nil {
		return
	}
	fields(e, l.args)
	fields(e, args)
	e.Msg(msg)
}

func fields(e *zerolog.Event, args []any) {
	for i := 0; i+1 < len(args); i += 2 {
		k, ok := args[i].(string)
		if !ok {
			k = fmt.Sprint(args[i])
		}
		switch v := args[i+1].(type) {
		case error:
			e.AnErr(k, v)
		case hclog.Format:
			if len(v) > 0 {
				if f, ok := v[0].(string); ok {
					e.Str(k, fmt.Sprintf(f, v[1:]...))
				}
			}
		default:
			e.Str(k, fmt.Sprint(v))
		}
	}
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) debug() bool   { return l.log.GetLevel() <= zerolog.DebugLevel }
func (l *raftLog) IsTrace() bool { return l.debug() }
func (l *raftLog) IsDebug() bool { return l.debug() }
func (l *raftLog) IsInfo() bool  { return l.debug() }
func (l *raftLog) IsWarn() bool  { return true }
func (l *raftLog) IsError() bool { return true }

func (l *raftLog) ImpliedArgs() []any { return l.args }
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{log: l.log, name: l.name, args: append(append([]any{}, l.args...), args...)}
}
func (l *raftLog) Name() string { return l.name }
func (l *raftLog) Named(name string) hclog.Logger {
	return &raftLog{log: l.log, name: strings.TrimPrefix(l.name+"."+name, "."), args: l.args}
}
func (l *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{log: l.log, name: name, args: l.args}
}
func (l *raftLog) SetLevel(hclog.Level) {}
func (l *raftLog) GetLevel() hclog.Level {
	if l.debug() {
		return hclog.Debug
	}
	return hclog.Warn
}
func (l *raftLog) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}
func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

type lineWriter struct{ l *raftLog }

func (w lineWriter) Write(p []byte) (int, error) {
	w.l.Warn(strings.TrimSpace(string(p)))
	return len(p), nil
}
