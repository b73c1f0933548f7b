package kafkaio

import (
	"context"
	"fmt"
	"strconv"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

var _ bridge.TopicLimits = (*Producer)(nil)

// maxMessageBytes is the topic's setting that bounds a record batch.
const maxMessageBytes = "max.message.bytes"

// MaxMessageBytes asks Kafka how large a record batch of a topic may be. An error means that Kafka cannot
// be asked, or does not tell this client. See bridge.TopicLimits.
func (p *Producer) MaxMessageBytes(ctx context.Context, topic string) (int, error) {
	res, err := p.cfg.Client.KafkaClient().DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{maxMessageBytes},
		}},
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the settings of topic %s: %w", topic, err)
	}
	for _, r := range res.Resources {
		if r.Error != nil {
			return 0, fmt.Errorf("settings of topic %s: %w", topic, r.Error)
		}
		for _, e := range r.ConfigEntries {
			if e.ConfigName != maxMessageBytes {
				continue
			}
			n, err := strconv.Atoi(e.ConfigValue)
			if err != nil {
				return 0, fmt.Errorf("settings of topic %s: %s: %w", topic, maxMessageBytes, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("settings of topic %s: Kafka does not name %s", topic, maxMessageBytes)
}
