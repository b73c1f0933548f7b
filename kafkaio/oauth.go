package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
)

// oauthMechanism is OAUTHBEARER (RFC 7628, KIP-255): a token that somebody else has issued is the proof.
type oauthMechanism struct {
	user       string // for error messages; may be empty
	token      func(context.Context) (string, error)
	extensions map[string]string // KIP-342
	closeFunc  func()            // may be nil
}

// oauthWireName is the mechanism's name in the protocol; AWS_MSK_IAM has it too.
const oauthWireName = "OAUTHBEARER"

// What RFC 6750 allows in a token, and KIP-342 in extensions: nothing that could end a field of the message.
var (
	bearerToken    = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)
	extensionName  = regexp.MustCompile(`^[A-Za-z]+$`)
	extensionValue = regexp.MustCompile(`^[\x21-\x7e \t\r\n]*$`)
)

var errNotBearer = errors.New("the token holds characters that RFC 6750 does not allow in one")

// Name implements sasl.Mechanism.
func (m *oauthMechanism) Name() string { return oauthWireName }

// Username names the user in an AuthError.
func (m *oauthMechanism) Username() string { return m.user }

// String names the mechanism.
func (m *oauthMechanism) String() string { return oauthWireName }

// GoString keeps what the mechanism holds from being printed.
func (m *oauthMechanism) GoString() string { return oauthWireName }

// Start implements sasl.Mechanism.
func (m *oauthMechanism) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	t, err := m.token(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !bearerToken.MatchString(t) {
		return nil, nil, errNotBearer
	}
	var b strings.Builder
	b.WriteString("n,,\x01auth=Bearer " + t + "\x01")
	for _, name := range slices.Sorted(maps.Keys(m.extensions)) {
		b.WriteString(name + "=" + m.extensions[name] + "\x01")
	}
	b.WriteString("\x01")
	return &oauthSession{token: t}, []byte(b.String()), nil
}

func (m *oauthMechanism) close() {
	if m.closeFunc != nil {
		m.closeFunc()
	}
}

// oauthSession is one authentication.
type oauthSession struct {
	token     string
	challenge string // what the broker said against the token
}

// Next implements sasl.StateMachine. A broker that refuses the token says why in a challenge, and only after an
// answer of one byte 1 does it say no (RFC 7628, section 3.2.3).
func (s *oauthSession) Next(_ context.Context, challenge []byte) (bool, []byte, error) {
	switch {
	case len(challenge) == 0 && s.challenge == "":
		return true, nil, nil
	case s.challenge == "":
		s.challenge = string(challenge)
		return false, []byte{1}, nil
	}
	return false, nil, errors.New("the broker refuses the token and goes on asking")
}

// explain adds the challenge to the broker's final word, and takes the token out of both, should it be there.
func (s *oauthSession) explain(err error) error {
	if s.challenge != "" && !strings.Contains(err.Error(), s.challenge) {
		err = fmt.Errorf("%w: %s", err, clip(s.challenge))
	}
	if strings.Contains(err.Error(), s.token) {
		return errors.New(strings.ReplaceAll(err.Error(), s.token, "[secret]"))
	}
	return err
}

// maxTold is how much of what another server says becomes part of an error, in bytes.
const maxTold = 300

func clip(s string) string {
	if len(s) > maxTold {
		return strings.ToValidUTF8(s[:maxTold], "") + "…"
	}
	return s
}
