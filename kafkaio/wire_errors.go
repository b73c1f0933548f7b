package kafkaio

import (
	"errors"

	"github.com/segmentio/kafka-go"
)

// kafkaError turns a code of the protocol into an error.
func kafkaError(code int16) error { return kafka.Error(code) }

// leaderMoved says whether the error means that the partition is to be sought elsewhere, or is not there
// (yet, or any more): ask for metadata, wait a little, try again.
func leaderMoved(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition,
		kafka.ReplicaNotAvailable, kafka.KafkaStorageError, kafka.FencedLeaderEpoch,
		kafka.UnknownLeaderEpoch, kafka.UnknownTopicID, kafka.InconsistentTopicID,
		kafka.OffsetNotAvailable, kafka.BrokerNotAvailable:
		return true
	}
	return false
}
