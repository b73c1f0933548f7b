package node

import (
	"fmt"

	"github.com/tidewire/tidewire/kafkaio"
)

// security reads how to speak to Kafka. Files are read here already, so that a wrong path stops the start
// with the variable's name and not later without it. No secret is ever part of a problem.
func (e *env) security(p *problems) kafkaio.Security {
	before := len(*p)
	on, ok := onOff(e.KafkaTLS)
	if !ok {
		p.add("TIDEWIRE_KAFKA_TLS", e.KafkaTLS, "want on or off")
	}
	s := kafkaio.Security{
		TLS: on, CA: e.KafkaTLSCA, Cert: e.KafkaTLSCert, Key: e.KafkaTLSKey,
		Mechanism: e.KafkaSASLMechanism, Username: e.KafkaSASLUsername, Password: e.secret("TIDEWIRE_KAFKA_SASL_PASSWORD"),
	}
	if on {
		p.caFile("TIDEWIRE_KAFKA_TLS_CA", e.KafkaTLSCA)
		p.pair("TIDEWIRE_KAFKA_TLS_CERT", e.KafkaTLSCert, "TIDEWIRE_KAFKA_TLS_KEY", e.KafkaTLSKey)
	} else if ok {
		for _, f := range [][2]string{
			{"TIDEWIRE_KAFKA_TLS_CA", e.KafkaTLSCA}, {"TIDEWIRE_KAFKA_TLS_CERT", e.KafkaTLSCert}, {"TIDEWIRE_KAFKA_TLS_KEY", e.KafkaTLSKey},
		} {
			if f[1] != "" {
				p.add(f[0], f[1], "TLS is off: set TIDEWIRE_KAFKA_TLS=on too, or leave this out")
			}
		}
	}
	e.sasl(&s, p)
	if len(*p) == before {
		// What only the whole shows, such as characters that a mechanism forbids.
		if _, _, err := s.Build(); err != nil {
			*p = append(*p, fmt.Errorf("TIDEWIRE_KAFKA_TLS_*, TIDEWIRE_KAFKA_SASL_*, TIDEWIRE_KAFKA_OAUTH_*: %w", err))
		}
	}
	return s
}
