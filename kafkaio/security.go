package kafkaio

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tidewire/tidewire/internal/secret"
)

// Security is how connections to Kafka are protected, as an operator writes it.
type Security struct {
	TLS  bool
	CA   string // path of PEM certificates that sign the brokers'; empty: the system's
	Cert string // path of this client's PEM certificate, for mutual TLS; with Key
	Key  string

	Mechanism string        // one of the Mechanism constants; empty: no SASL
	Username  string        // of PLAIN and SCRAM
	Password  secret.Secret // asked for at every authentication
	OAuth     OAuth         // of OAUTHBEARER
	AWSRegion string        // of AWS_MSK_IAM
}

// The names of the SASL mechanisms.
const (
	MechanismPlain       = "PLAIN"
	MechanismScramSHA256 = "SCRAM-SHA-256"
	MechanismScramSHA512 = "SCRAM-SHA-512"
	MechanismOAuthBearer = "OAUTHBEARER"
	MechanismAWSMSKIAM   = "AWS_MSK_IAM"
)

// Mechanisms lists them, for messages.
var Mechanisms = []string{MechanismPlain, MechanismScramSHA256, MechanismScramSHA512, MechanismOAuthBearer, MechanismAWSMSKIAM}

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
	errs = append(errs, s.validateMechanism()...)
	return errors.Join(errs...)
}

func (s Security) validateMechanism() (errs []error) {
	login := s.Username != "" || s.Password.IsSet()
	switch s.Mechanism {
	case "":
		if login || s.OAuth.isSet() || s.AWSRegion != "" {
			errs = append(errs, errors.New("credentials are given without a SASL mechanism"))
		}
	case MechanismPlain, MechanismScramSHA256, MechanismScramSHA512:
		if s.Username == "" {
			errs = append(errs, fmt.Errorf("SASL mechanism %s needs a user name", s.Mechanism))
		}
		if !s.Password.IsSet() {
			errs = append(errs, fmt.Errorf("SASL mechanism %s needs a password", s.Mechanism))
		}
	case MechanismOAuthBearer:
		if login {
			errs = append(errs, errors.New("SASL mechanism OAUTHBEARER takes no user name and no password"))
		}
		errs = append(errs, s.OAuth.Validate())
	case MechanismAWSMSKIAM:
		if login {
			errs = append(errs, errors.New("SASL mechanism AWS_MSK_IAM takes no user name and no password, but AWS's own variables"))
		}
		if !awsRegion.MatchString(s.AWSRegion) {
			errs = append(errs, fmt.Errorf("SASL mechanism AWS_MSK_IAM needs a region, such as eu-central-1, not %q", s.AWSRegion))
		}
	default:
		errs = append(errs, fmt.Errorf("SASL mechanism %q is none of %s", s.Mechanism, strings.Join(Mechanisms, ", ")))
	}
	return errs
}

// Build reads the files and returns what Config takes; either may be nil. The certificate files are
// read once: a new certificate needs a restart. The Client that gets the mechanism closes it.
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
	m := passwordMechanism{name: s.Mechanism, user: s.Username, password: s.Password}
	switch s.Mechanism {
	case "":
		return nil, nil
	case MechanismOAuthBearer:
		return s.OAuth.mechanism(), nil
	case MechanismAWSMSKIAM:
		return mskMechanism(s.AWSRegion), nil
	case MechanismScramSHA256, MechanismScramSHA512:
		if _, err := m.current(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// passwordMechanism is PLAIN or SCRAM with the password as it is when a connection is authenticated.
type passwordMechanism struct {
	name, user string
	password   secret.Secret
}

// Name implements sasl.Mechanism.
func (m passwordMechanism) Name() string { return m.name }

// Start implements sasl.Mechanism.
func (m passwordMechanism) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	now, err := m.current()
	if err != nil {
		return nil, nil, err
	}
	return now.Start(ctx)
}

// current is the library's mechanism with the password of now.
func (m passwordMechanism) current() (sasl.Mechanism, error) {
	password := m.password.Value()
	if m.name == MechanismPlain {
		return plain.Mechanism{Username: m.user, Password: password}, nil
	}
	algo := scram.SHA256
	if m.name == MechanismScramSHA512 {
		algo = scram.SHA512
	}
	now, err := scram.Mechanism(algo, m.user, password)
	if err != nil {
		// The library's error may quote what it was given.
		return nil, fmt.Errorf("SASL mechanism %s: user name or password holds characters that SASLprep forbids", m.name)
	}
	return now, nil
}

// Username names the user in an AuthError.
func (m passwordMechanism) Username() string { return m.user }

// String names mechanism and user.
func (m passwordMechanism) String() string { return m.name + " as " + m.user }
