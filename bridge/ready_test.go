package bridge

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/cache"
)

// A subscription that was made before its partition was begun missed what was written in between, when
// partitions begin at the latest record: seen as 20 of 50 records missing on a machine under load.
func TestReadyWaitsUntilThePartitionsAreBegun(t *testing.T) {
	b := New(Config{Node: "n1", Groups: 1, Cache: cache.NewStore(cache.Config{}), Log: zerolog.Nop()})
	// A node that had just started said of every topic that it did not exist, and clients gave up.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var early *UnavailableError
	if err := b.Ready(ctx, "t"); !errors.As(err, &early) {
		t.Errorf("before the topics are known: %v, want unavailable", err)
	}
	if _, err := b.Publish(t.Context(), PublishRequest{Topic: "t"}); !errors.As(err, &early) {
		t.Errorf("publish before the topics are known: %v, want unavailable", err)
	}
	b.TopicsChanged(map[string]TopicMeta{"t": {Partitions: 2, Exposed: true, Initial: true}})
	ready := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		return b.Ready(ctx, "t")
	}
	begin := func(partition int32) {
		entry := (&startOp{TP: TopicPartition{"t", partition}, Partitions: 2, First: 10}).appendTo(newEntry(64))
		b.Apply(0, 1, 1, entry)
	}
	for i := range int32(2) {
		var unavailable *UnavailableError
		if err := ready(); !errors.As(err, &unavailable) || b.Unbegun() != int(2-i) {
			t.Fatalf("with %d of 2 partitions begun: %v, %d unbegun", i, err, b.Unbegun())
		}
		begin(i)
	}
	if err := ready(); err != nil || b.Unbegun() != 0 {
		t.Errorf("with all begun: %v, %d unbegun", err, b.Unbegun())
	}
}
