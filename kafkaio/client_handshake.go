package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"

	// The request types whose versions are agreed on below register themselves when they are linked.
	_ "github.com/segmentio/kafka-go/protocol/fetch"
	_ "github.com/segmentio/kafka-go/protocol/findcoordinator"
	_ "github.com/segmentio/kafka-go/protocol/initproducerid"
	_ "github.com/segmentio/kafka-go/protocol/listoffsets"
	_ "github.com/segmentio/kafka-go/protocol/metadata"
	_ "github.com/segmentio/kafka-go/protocol/offsetcommit"
	_ "github.com/segmentio/kafka-go/protocol/offsetfetch"
	_ "github.com/segmentio/kafka-go/protocol/produce"
)

// The requests that this package cannot do without. A broker that lacks one is refused when it is
// dialled, with an error that says which, rather than by strange answers later.
var (
	neededKeys = []protocol.ApiKey{
		protocol.Produce, protocol.Fetch, protocol.ListOffsets, protocol.Metadata, protocol.OffsetCommit,
		protocol.OffsetFetch, protocol.FindCoordinator, protocol.InitProducerId,
	}
	neededSASLKeys = []protocol.ApiKey{protocol.SaslHandshake, protocol.SaslAuthenticate}
)

// VersionError says that a broker supports no version of a request that we can speak.
type VersionError struct {
	Key                  protocol.ApiKey
	OursMin, OursMax     int16
	BrokerMin, BrokerMax int16 // both -1: the broker does not know the request
}

func (e *VersionError) Error() string {
	if e.BrokerMax < 0 {
		return fmt.Sprintf("the broker does not support %v requests (Kafka 0.11 or newer is needed)", e.Key)
	}
	return fmt.Sprintf("no common version of %v: the broker has v%d to v%d, this program v%d to v%d",
		e.Key, e.BrokerMin, e.BrokerMax, e.OursMin, e.OursMax)
}

// AuthError says that a broker refused our credentials. It never holds the password.
type AuthError struct {
	Mechanism string
	User      string // empty if the mechanism does not tell
	Err       error
}

func (e *AuthError) Error() string {
	if e.User == "" {
		return fmt.Sprintf("Kafka refused the authentication with %s: %v", e.Mechanism, e.Err)
	}
	return fmt.Sprintf("Kafka refused the authentication of user %q with %s: %v", e.User, e.Mechanism, e.Err)
}

func (e *AuthError) Unwrap() error { return e.Err }

// isRefused says whether an error is that a broker does not take our credentials: on a new connection, or for the
// renewal of one's session, after which that connection is of no use.
func isRefused(err error) bool {
	var auth *AuthError
	return errors.As(err, &auth)
}

// negotiate asks the broker which versions it supports and returns for each request the newest one that
// both sides know.
func negotiate(ctx context.Context, conn *protocol.Conn, withSASL bool) (map[protocol.ApiKey]int16, error) {
	m, err := RoundTrip(ctx, conn, &apiversions.Request{})
	if err != nil {
		if isEOF(err) {
			return nil, fmt.Errorf("the broker closed the connection at the first request (does this listener expect TLS?): %w", err)
		}
		return nil, fmt.Errorf("ask for API versions: %w", err)
	}
	res, ok := m.(*apiversions.Response)
	if !ok {
		return nil, fmt.Errorf("ask for API versions: unexpected answer %T", m)
	}
	if res.ErrorCode != 0 {
		return nil, fmt.Errorf("ask for API versions: %w", kafka.Error(res.ErrorCode))
	}
	versions := make(map[protocol.ApiKey]int16, len(res.ApiKeys))
	broker := make(map[protocol.ApiKey]apiversions.ApiKeyResponse, len(res.ApiKeys))
	for _, k := range res.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		broker[key] = k
		if v := min(k.MaxVersion, key.MaxVersion()); v >= k.MinVersion && v >= key.MinVersion() {
			versions[key] = v
		} else {
			versions[key] = -1 // refused by the encoder, should anyone use it
		}
	}
	needed := neededKeys
	if withSASL {
		needed = append(append([]protocol.ApiKey(nil), needed...), neededSASLKeys...)
	}
	for _, key := range needed {
		if v, ok := versions[key]; ok && v >= 0 {
			continue
		}
		e := &VersionError{Key: key, OursMin: key.MinVersion(), OursMax: key.MaxVersion(), BrokerMin: -1, BrokerMax: -1}
		if k, ok := broker[key]; ok {
			e.BrokerMin, e.BrokerMax = k.MinVersion, k.MaxVersion
		}
		return nil, e
	}
	return versions, nil
}

// startSASL gets the credentials ready, without a word to the broker at addr.
func startSASL(ctx context.Context, addr string, mech sasl.Mechanism) (session sasl.StateMachine, first []byte, err error) {
	meta := &sasl.Metadata{}
	if host, port, err := net.SplitHostPort(addr); err == nil {
		meta.Host = host
		meta.Port, _ = strconv.Atoi(port)
	}
	session, first, err = mech.Start(sasl.WithMetadata(ctx, meta))
	if err != nil { // we have nothing to show: nobody has refused anything
		return nil, nil, fmt.Errorf("authenticate to Kafka with %s: %w", mech.Name(), err)
	}
	return session, first, nil
}

// maxSession is the longest life of a session that is believed.
const maxSession = 365 * 24 * time.Hour

// authenticate runs the SASL exchange (KIP-43, and KIP-152 for the errors) with what startSASL returned. It returns
// how long the broker lets the session last (KIP-368); 0 is for ever.
func authenticate(ctx context.Context, conn *protocol.Conn, mech sasl.Mechanism, session sasl.StateMachine, token []byte) (time.Duration, error) {
	refused := func(err error) error {
		e := &AuthError{Mechanism: mech.Name(), Err: err}
		if u, ok := mech.(interface{ Username() string }); ok {
			e.User = u.Username()
		}
		return e
	}
	m, err := RoundTrip(ctx, conn, &saslhandshake.Request{Mechanism: mech.Name()})
	if err != nil {
		return 0, fmt.Errorf("SASL handshake: %w", err)
	}
	hs, ok := m.(*saslhandshake.Response)
	if !ok {
		return 0, fmt.Errorf("SASL handshake: unexpected answer %T", m)
	}
	if hs.ErrorCode != 0 {
		return 0, refused(fmt.Errorf("the broker offers %v: %w", hs.Mechanisms, kafka.Error(hs.ErrorCode)))
	}
	var lifetime int64
	for done := false; !done; {
		m, err := RoundTrip(ctx, conn, &saslauthenticate.Request{AuthBytes: token})
		if err != nil {
			if isEOF(err) && ctx.Err() == nil {
				// Some brokers say no by hanging up.
				return 0, refused(fmt.Errorf("the broker closed the connection (%w)", err))
			}
			return 0, fmt.Errorf("SASL authentication: %w", err)
		}
		res, ok := m.(*saslauthenticate.Response)
		if !ok {
			return 0, fmt.Errorf("SASL authentication: unexpected answer %T", m)
		}
		if res.ErrorCode != 0 {
			err := error(kafka.Error(res.ErrorCode))
			if res.ErrorMessage != "" {
				err = fmt.Errorf("%w: %s", err, res.ErrorMessage)
			}
			if x, ok := session.(interface{ explain(error) error }); ok {
				err = x.explain(err)
			}
			return 0, refused(err)
		}
		lifetime = res.SessionLifetimeMs
		if done, token, err = session.Next(ctx, res.AuthBytes); err != nil {
			return 0, refused(err)
		}
	}
	return time.Duration(max(0, min(lifetime, maxSession.Milliseconds()))) * time.Millisecond, nil
}

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
