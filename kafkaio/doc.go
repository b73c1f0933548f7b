// Package kafkaio is Kafka in and out, on kafka-go's protocol layer: it implements what package bridge
// needs from Kafka.
//
// Reading: Topics finds topics, partitions and leaders; Feed reads the partitions that this node
// coordinates, with one connection a broker and a parser of record batches of our own; Replayer and
// Offsets read single ranges and look offsets up.
//
// Writing: Producer writes records once each, with acks=all and Kafka's sequence numbers. Group is the
// membership in the consumer group, which shows who reads what and holds the committed offsets with the
// ledger's epochs; who reads is decided elsewhere.
//
// All of them share a Client, which opens connections with TLS and SASL.
package kafkaio
