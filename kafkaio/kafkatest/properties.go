package kafkatest

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// properties returns a node's server.properties.
//
// What differs from Kafka's defaults does so to start soon and use little
// (topics of the broker itself with few partitions, a small cleaner buffer), to
// let tests see in a second what takes minutes in production (retention,
// compaction, a dead broker), or to keep a test honest (no topic made by
// chance, no record deleted for the timestamp a test gave it unless its topic
// says how old records may be). Sessions of consumer groups keep their defaults, 6 s at least, as
// clients will meet them.
func (k *cluster) properties(n *node) string {
	var voters []string
	for _, v := range k.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, loopback(v.controller)))
	}
	replicas := fmt.Sprint(min(k.options.Brokers, 3))
	// After a restart the controller lets a broker in only once the session of its
	// predecessor has run out. A lone broker has no other to hand over to, so its
	// session need only outlast the pauses of a busy machine.
	session := "3000"
	if k.options.Brokers == 1 {
		session = "1500"
	}
	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        fmt.Sprint(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "PLAINTEXT",
		"listeners":                      "PLAINTEXT://" + loopback(n.plain) + ",CONTROLLER://" + loopback(n.controller),
		"advertised.listeners":           "PLAINTEXT://" + loopback(n.plain),
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL",
		"log.dirs":                       filepath.Join(n.dir, "log"),

		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       replicas,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "3",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "3",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "3",

		"group.initial.rebalance.delay.ms": "0",

		"broker.heartbeat.interval.ms":                                "300",
		"broker.session.timeout.ms":                                   session,
		"log.cleaner.dedupe.buffer.size":                              "8388608",
		"log.cleaner.backoff.ms":                                      "500",
		"log.initial.task.delay.ms":                                   "500",
		"log.retention.check.interval.ms":                             "1000",
		"log.retention.ms":                                            "-1",
		"log.segment.delete.delay.ms":                                 "1000",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"num.network.threads":                                         "2",
		"num.io.threads":                                              "4",
		"background.threads":                                          "4",
	}
	if k.options.SASL {
		p["listeners"] += ",SASL://" + loopback(n.sasl) + ",MTLS://" + loopback(n.mtls)
		p["advertised.listeners"] += ",SASL://" + loopback(n.sasl) + ",MTLS://" + loopback(n.mtls)
		p["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
		p["listener.name.sasl.plain.sasl.jaas.config"] = fmt.Sprintf(
			"org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=\"%s\";", saslUser, saslPassword)
		for _, m := range []string{"scram-sha-256", "scram-sha-512"} {
			p["listener.name.sasl."+m+".sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		}
		// Kafka's own validator of unsigned tokens, which is what it has without a handler class: see UnsignedToken.
		p["listener.name.sasl.oauthbearer.sasl.jaas.config"] = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
		p["ssl.keystore.type"] = "PEM"
		p["ssl.keystore.location"] = k.certs.serverPair
		p["ssl.truststore.type"] = "PEM"
		p["ssl.truststore.location"] = k.certs.ca
		p["listener.name.mtls.ssl.client.auth"] = "required"
	}
	maps.Copy(p, k.options.Config)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", key, p[key])
	}
	return b.String()
}
