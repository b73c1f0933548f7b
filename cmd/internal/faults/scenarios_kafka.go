package faults

import (
	"context"
	"errors"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// kafkaScenarios are those in which Kafka fails or is changed.
func kafkaScenarios() []Scenario {
	return []Scenario{
		{Name: "broker-restart", About: "each broker is stopped in order and started again", Slice: true, Run: brokerRestart},
		{Name: "broker-kill", About: "a broker is killed with −9 and started again", Run: repeat(2, brokerKill)},
		{Name: "leader-moves", About: "all partitions get other leaders, again and again", Slice: true, Run: repeat(5, moveLeaders)},
		{Name: "kafka-away", About: "all brokers hang for a minute", Run: kafkaAway},
		{Name: "kafka-restart", About: "all brokers are stopped at once and started again", Run: kafkaRestart},
		{Name: "more-partitions", About: "the topic gains partitions", Run: morePartitions},
		{Name: "more-partitions-kill", About: "a coordinator is killed while the topic gains partitions", Run: repeat(3, morePartitionsAndKill)},
		{Name: "topic-recreated", About: "the topic is deleted and created again with the same name", Run: topicRecreated},
		{Name: "records-deleted", About: "the records of all partitions are deleted while clients resume and read slowly", Run: repeat(3, recordsDeleted)},
	}
}

func brokerRestart(ctx context.Context, r *Rig) error {
	for _, i := range r.Rand.Perm(kafkaBrokers) {
		if err := r.Sleep(ctx, time.Second); err != nil {
			return err
		}
		r.Note("stop broker k%d", i+1)
		r.Kafka.Stop(i)
		r.Note("start it")
		if err := errors.Join(r.Kafka.Start(i), r.Kafka.WaitReady(ctx)); err != nil {
			return err
		}
		r.Note("it is back")
	}
	return r.Sleep(ctx, time.Second)
}

func brokerKill(ctx context.Context, r *Rig) error {
	i := r.Rand.IntN(kafkaBrokers)
	r.Note("kill broker k%d", i+1)
	r.Kafka.Kill(i)
	if err := r.Pause(ctx, 0, 6*time.Second); err != nil {
		return err
	}
	r.Note("start it")
	return errors.Join(r.Kafka.Start(i), r.Kafka.WaitReady(ctx))
}

func moveLeaders(ctx context.Context, r *Rig) error {
	r.Note("move all leaders")
	return r.Kafka.MoveLeaders(ctx, r.Topic)
}

func kafkaAway(ctx context.Context, r *Rig) error {
	r.Note("SIGSTOP all brokers")
	for i := range kafkaBrokers {
		r.Kafka.Freeze(i)
	}
	err := r.Sleep(ctx, time.Minute)
	r.Note("SIGCONT all brokers")
	for i := range kafkaBrokers {
		r.Kafka.Thaw(i)
	}
	return errors.Join(err, r.Kafka.WaitReady(ctx), r.Sleep(ctx, 5*time.Second))
}

func kafkaRestart(ctx context.Context, r *Rig) error {
	r.Note("kill all brokers")
	for i := range kafkaBrokers {
		r.Kafka.Kill(i)
	}
	if err := r.Pause(ctx, 0, 5*time.Second); err != nil {
		return err
	}
	r.Note("start them")
	for i := range kafkaBrokers {
		if err := r.Kafka.Start(i); err != nil {
			return err
		}
	}
	return errors.Join(r.Kafka.WaitReady(ctx), r.Sleep(ctx, 5*time.Second))
}

func morePartitions(ctx context.Context, r *Rig) error {
	if err := r.Sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	r.Note("from %d to %d partitions", r.Parts, r.Parts+3)
	return errors.Join(r.Kafka.AddPartitions(ctx, r.Topic, r.Parts+3), r.Sleep(ctx, 8*time.Second))
}

// morePartitionsAndKill kills a coordinator a moment before or after the topic has grown, so that its successors
// may or may not know of the new partitions, whose beginning nobody has agreed on.
func morePartitionsAndKill(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	grown, after := make(chan error, 1), time.Duration(r.Rand.Int64N(int64(6*time.Second)))
	r.Note("from %d to %d partitions; %s will be killed after %v", r.Parts, r.Parts+2, r.Nodes.Name(i), after.Round(time.Millisecond))
	r.Parts += 2
	go func() { grown <- r.Kafka.AddPartitions(ctx, r.Topic, r.Parts) }()
	err = r.Sleep(ctx, after)
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	if err := errors.Join(err, <-grown, r.Pause(ctx, 0, 3*time.Second)); err != nil {
		return err
	}
	return restart(ctx, r, r.Rand.IntN(2) == 0, i)
}

func topicRecreated(ctx context.Context, r *Rig) error {
	if err := r.Sleep(ctx, 4*time.Second); err != nil {
		return err
	}
	ends, err := r.Kafka.End(ctx, r.Topic, r.Parts)
	if err != nil {
		return err
	}
	r.Note("delete the topic")
	var over []func()
	for p, end := range ends {
		over = append(over, r.Load.Removing(verify.Removal{Partition: verify.Partition{Topic: r.Topic, Index: p}, Kind: verify.Recreated, To: end + growth}))
	}
	if err := r.Kafka.DeleteTopic(ctx, r.Topic); err != nil {
		return err
	}
	if err := r.Pause(ctx, 0, 3*time.Second); err != nil {
		return err
	}
	r.Note("create it again")
	if err := r.Kafka.CreateTopic(ctx, r.Topic, r.Parts, kafkaBrokers, nil); err != nil {
		return err
	}
	for _, f := range over {
		f()
	}
	return r.Sleep(ctx, 8*time.Second)
}

// growth is more than what a partition takes between the question how long it is and what is done to it then.
const growth = 1000

func recordsDeleted(ctx context.Context, r *Rig) error {
	ends, err := r.Kafka.End(ctx, r.Topic, r.Parts)
	if err != nil {
		return err
	}
	r.Note("delete everything before %v", ends)
	for p, end := range ends {
		over := r.Load.Removing(verify.Removal{Partition: verify.Partition{Topic: r.Topic, Index: p}, Kind: verify.Deleted, To: end})
		if err := r.Kafka.DeleteRecords(ctx, r.Topic, p, end); err != nil {
			return err
		}
		over()
	}
	return nil
}
