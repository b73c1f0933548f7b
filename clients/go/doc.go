// Package tidewire is the Go client of Tidewire: it subscribes to subjects and publishes to them over
// one WebSocket connection to any node of a cluster, and moves to another node when that one goes.
//
//	client, err := tidewire.New(tidewire.Config{Nodes: []string{"127.0.0.1:8080", "127.0.0.1:8180"}})
//	if err != nil { … }
//	defer client.Close()
//	sub, err := client.Subscribe(ctx, "/prices/EURUSD", tidewire.SubOptions{History: 10})
//	if err != nil { … }
//	for {
//		item, err := sub.Next(ctx)
//		if err != nil { … }
//		switch item := item.(type) {
//		case *tidewire.Record: // the next record, each partition in order, none twice
//		case *tidewire.Gap:    // records were lost for good: what and why
//		case *tidewire.Live:   // everything that was there at the start has been delivered
//		case *tidewire.Resumed: // went on after a break, perhaps on another node
//		}
//	}
//
// # What it promises
//
// A subscription keeps a [Vector]: everything up to there has been handed to the application's queue.
// After any break the client subscribes again from its vector, so that no record is missed or given
// twice; where the cluster cannot serve that, a [Gap] says so in its place in the stream. The state of a
// stream can be kept by the application ([Subscription.Vector], or the positions of the records it has
// processed) and handed to a later [SubOptions.Resume].
//
// A publish carries a message id and is repeated with the same one until the cluster acknowledges or
// refuses it, so it is written once however often it was sent. [Client.Publish] waits for that;
// [Client.PublishAsync] does not, and keeps the order of what is published to one subject.
//
// With a [VectorStore] a subscription keeps its own place, and goes on there in a later process:
//
//	sub, err := client.Subscribe(ctx, "/prices/*", tidewire.SubOptions{Store: store})
//	for item, err := range sub.All(ctx) { … }
//
// # Slow applications
//
// Each subscription has a bounded queue. When it is full the client ends that subscription on the server
// and takes it up again from its vector once half of the queue has been read. So a slow subscription
// holds up neither the others nor publishes, and costs no memory beyond its queue.
package tidewire
