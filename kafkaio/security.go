package kafkaio

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Secret is a string that formats as a placeholder wherever it is printed, logged or encoded. Convert
// it with string(s) where the value itself is meant.
type Secret string

const redacted = "[secret]"

// String returns the placeholder, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from printing the value.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText keeps encoders from writing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Security is how connections to Kafka are protected, as an operator writes it.
type Security struct {
	TLS  bool
	CA   string // path of PEM certificates that sign the brokers'; empty: the system's
	Cert string // path of this client's PEM certificate, for mutual TLS; with Key
	Key  string

	Mechanism string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; empty: no SASL
	Username  string
	Password  Secret
}

// The names of the SASL mechanisms.
const (
	MechanismPlain       = "PLAIN"
	MechanismScramSHA256 = "SCRAM-SHA-256"
	MechanismScramSHA512 = "SCRAM-SHA-512"
)

// Validate says everything that is wrong in itself, without reading the files.
func (s Security) Validate() error {
	var errs []error
	if !s.TLS && (s.CA != "" || s.Cert != "" || s.Key != "") {
		errs = append(errs, errors.New("a CA, certificate or key is given, but TLS is off"))
	}
	switch {
	case s.Cert != "" && s.Key == "":
		errs = append(errs, errors.New("a client certificate is given without its key"))
	case s.Cert == "" && s.Key != "":
		errs = append(errs, errors.New("a client key is given without its certificate"))
	}
	switch s.Mechanism {
	case "":
		if s.Username != "" || s.Password != "" {
			errs = append(errs, errors.New("a user name or password is given without a SASL mechanism"))
		}
	case MechanismPlain, MechanismScramSHA256, MechanismScramSHA512:
		if s.Username == "" {
			errs = append(errs, fmt.Errorf("SASL mechanism %s needs a user name", s.Mechanism))
		}
		if s.Password == "" {
			errs = append(errs, fmt.Errorf("SASL mechanism %s needs a password", s.Mechanism))
		}
	default:
		errs = append(errs, fmt.Errorf("SASL mechanism %q is none of %s, %s, %s",
			s.Mechanism, MechanismPlain, MechanismScramSHA256, MechanismScramSHA512))
	}
	return errors.Join(errs...)
}

// Build reads the files and returns what Config takes; either may be nil. The certificate files are
// read once: a new certificate needs a restart.
func (s Security) Build() (*tls.Config, sasl.Mechanism, error) {
	if err := s.Validate(); err != nil {
		return nil, nil, err
	}
	tc, err := s.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	mech, err := s.mechanism()
	if err != nil {
		return nil, nil, err
	}
	return tc, mech, nil
}

func (s Security) tlsConfig() (*tls.Config, error) {
	if !s.TLS {
		return nil, nil
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12} // ServerName is each broker's host
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("read the CA of Kafka: %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA of Kafka: %s holds no PEM certificate", s.CA)
		}
	}
	if s.Cert != "" {
		cert, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate for Kafka: %w", err)
		}
		tc.Certificates = []tls.Certificate{cert}
	}
	return tc, nil
}

func (s Security) mechanism() (sasl.Mechanism, error) {
	var m sasl.Mechanism
	switch s.Mechanism {
	case "":
		return nil, nil
	case MechanismPlain:
		m = plain.Mechanism{Username: s.Username, Password: string(s.Password)}
	case MechanismScramSHA256, MechanismScramSHA512:
		algo := scram.SHA256
		if s.Mechanism == MechanismScramSHA512 {
			algo = scram.SHA512
		}
		var err error
		if m, err = scram.Mechanism(algo, s.Username, string(s.Password)); err != nil {
			// The library's error may quote what it was given.
			return nil, fmt.Errorf("SASL mechanism %s: user name or password holds characters that SASLprep forbids", s.Mechanism)
		}
	}
	return userMechanism{Mechanism: m, user: s.Username}, nil
}

// userMechanism remembers whose credentials these are, for error messages.
type userMechanism struct {
	sasl.Mechanism
	user string
}

// Username names the user in an AuthError.
func (m userMechanism) Username() string { return m.user }

// GoString keeps the credentials inside from being printed.
func (m userMechanism) GoString() string { return m.String() }

// String names mechanism and user.
func (m userMechanism) String() string { return m.Name() + " as " + m.user }
