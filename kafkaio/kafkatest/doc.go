// Package kafkatest runs Kafka for Tidewire's tests: a real Apache Kafka of the
// versions we promise to work with, or kfake, the in-process stand-in, where a
// test wants speed or steered faults more than truth.
//
// It is imported by tests only; nothing that ships links it.
//
// # Where the real Kafka comes from
//
// The first of these that is there:
//
//  1. TIDEWIRE_TEST_BROKERS=host:port,... is a cluster that already runs. Tests
//     that stop brokers, set broker properties or need TLS skip, and say so.
//  2. A JVM and Maven: testdata/kafka/get-kafka.sh fetches the jars once into a
//     cache folder outside the tree, and the brokers are child processes.
//  3. Docker: the image apache/kafka, on the host's network (Linux only).
//
// Otherwise the test skips with a line that begins "REAL KAFKA NOT RUN", or
// fails if TIDEWIRE_TEST_KAFKA=required. TIDEWIRE_TEST_KAFKA=off skips at once.
// TIDEWIRE_TEST_KAFKA_VERSIONS=3.9 or =4 narrows [Versions].
//
// # Independence
//
// Everything that checks or prepares a topic here speaks through franz-go (kgo,
// kmsg), never through kafka-go, on which Tidewire itself is built: a mistake
// that both sides of a test share would not be seen.
package kafkatest
