//go:build !linux

package abuse

import (
	"context"
	"errors"
	"io"
)

var errLinux = errors.New("the attackers are for Linux: /proc, and loopback addresses that nobody has to set up")

type attacker struct{}

// Run says that it cannot.
func Run(context.Context, Options) (*Report, error) { return nil, errLinux }

// RunAttacker says that it cannot.
func RunAttacker(string, context.Context, io.Writer) error { return errLinux }

func halfOpen(*attacker)     {}
func slowHeaders(*attacker)  {}
func neverRead(*attacker)    {}
func pings(*attacker)        {}
func badFrames(*attacker)    {}
func randomSubs(*attacker)   {}
func replays(*attacker)      {}
func fragments(*attacker)    {}
func bombs(*attacker)        {}
func wrongMask(*attacker)    {}
func reservedBits(*attacker) {}
func connects(*attacker)     {}
func bigTokens(*attacker)    {}
func publishes(*attacker)    {}
func clusterPort(*attacker)  {}
