package kafkaio

import (
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/produce"
)

// answer is what came of sending a batch once. Either err is nil and the batch is written, or err says
// why not: code is Kafka's, or noCode when Kafka did not answer.
type answer struct {
	code       int16
	err        error
	ambiguous  bool  // Kafka may have written the batch in spite of the error
	baseOffset int64 // -1: not told
	appendTime int64 // -1: the records keep their timestamps
	badRecords []int // indices of the records at fault, if Kafka names them
}

const noCode = int16(-32768) // not a code of Kafka

// unsent is the answer for a batch that did not reach a broker.
func unsent(err error) answer { return answer{code: noCode, err: err} }

// unanswered is the one for a batch that was sent and whose answer did not arrive.
func unanswered(err error) answer { return answer{code: noCode, err: err, ambiguous: true} }

// verdict is what the producer does about an answer.
type verdict uint8

const (
	verdictWritten    verdict = iota
	verdictRetry              // the same batch again, after a while
	verdictStaleID            // Kafka does not accept the producer id or the sequence number
	verdictTooLarge           // the batch is over the topic's limit
	verdictRefused            // some records are at fault
	verdictRefusedAll         // no record would be accepted
	verdictUnknown            // a code that we do not know
)

func verdictOf(a answer) verdict {
	if a.err == nil {
		return verdictWritten
	}
	if a.code == noCode {
		return verdictRetry
	}
	switch kafka.Error(a.code) {
	case kafka.OutOfOrderSequenceNumber, kafka.InvalidProducerEpoch, kafka.InvalidProducerIDMapping,
		errUnknownProducerID, kafka.ProducerFenced:
		return verdictStaleID
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge:
		return verdictTooLarge
	case errInvalidRecord, kafka.InvalidTimestamp:
		return verdictRefused
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.InvalidTopic, kafka.PolicyViolation,
		kafka.UnsupportedForMessageFormat, kafka.UnsupportedVersion, kafka.InvalidRequiredAcks,
		kafka.TransactionalIDAuthorizationFailed:
		return verdictRefusedAll
	case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut,
		kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.NetworkException, kafka.NotEnoughReplicas,
		kafka.NotEnoughReplicasAfterAppend, kafka.KafkaStorageError, kafka.FencedLeaderEpoch,
		kafka.UnknownLeaderEpoch, errUnknownTopicID, errThrottlingQuota, errUnknownServer, kafka.InvalidMessage:
		return verdictRetry
	}
	return verdictUnknown
}

// Codes of Kafka's table of errors, under the names used there.
const (
	errUnknownServer     = kafka.Error(-1) // UNKNOWN_SERVER_ERROR
	errUnknownProducerID = kafka.Error(59)
	errInvalidRecord     = kafka.Error(87)
	errThrottlingQuota   = kafka.Error(89)
	errUnknownTopicID    = kafka.Error(100)
	errDuplicate         = kafka.Error(46) // DUPLICATE_SEQUENCE_NUMBER
)

// answerOf reads a partition's part of a produce response.
func answerOf(r *produce.ResponsePartition) answer {
	a := answer{code: r.ErrorCode, baseOffset: r.BaseOffset, appendTime: r.LogAppendTime}
	code := kafka.Error(r.ErrorCode)
	switch {
	case r.ErrorCode == 0:
		return a
	case code == errDuplicate:
		// The batch is there, and so long ago that its offset is forgotten; a number given all the
		// same is taken.
		if a.baseOffset < 0 {
			a.appendTime = -1
		}
		return a
	}
	a.err = error(code)
	if r.ErrorMessage != "" {
		a.err = fmt.Errorf("%w: %s", code, r.ErrorMessage)
	}
	for _, e := range r.RecordErrors {
		a.badRecords = append(a.badRecords, int(e.BatchIndex))
		if e.BatchIndexErrorMessage != "" && len(a.badRecords) == 1 {
			a.err = fmt.Errorf("%w (%s)", a.err, e.BatchIndexErrorMessage)
		}
	}
	switch code {
	case kafka.RequestTimedOut, kafka.NotEnoughReplicasAfterAppend, kafka.KafkaStorageError, kafka.NetworkException,
		errUnknownServer:
		a.ambiguous = true
	default:
		a.ambiguous = verdictOf(a) == verdictUnknown
	}
	return a
}
