package access

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// Subjects of the Bus. A node's name is a label.
const (
	newsSubject  = "hawser.news"
	nodeSubjects = "hawser.node."
	busQueue     = 4096 // messages that wait for the node; more are lost
)

// natsBus is a Bus over the connection of a Store. It has one node.
type natsBus struct{ conn *nats.Conn }

func (b *natsBus) Attend(node string, h BusHandler) (leave func(), err error) {
	b.conn.SetReconnectHandler(func(*nats.Conn) { h.Missed() })
	b.conn.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) { h.Missed() }) // of a full queue
	messages := make(chan *nats.Msg, busQueue)
	news, err := b.conn.ChanSubscribe(newsSubject, messages)
	if err != nil {
		return nil, fmt.Errorf("attend bus: %w", awayError(b.conn, err))
	}
	questions, err := b.conn.ChanSubscribe(nodeSubjects+node, messages)
	if err != nil {
		return nil, fmt.Errorf("attend bus: %w", errors.Join(awayError(b.conn, err), news.Unsubscribe()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() { take(ctx, &owned, messages, h) })
	leave = func() {
		// An error is that of a connection that is closed: nothing comes from it.
		news.Unsubscribe()
		questions.Unsubscribe()
		cancel()
		owned.Wait()
	}
	if err := b.conn.Flush(); err != nil { // whoever learns of this node from now on can ask it
		leave()
		return nil, fmt.Errorf("attend bus: %w", awayError(b.conn, err))
	}
	return leave, nil
}

// take hands messages to their handler.
func take(ctx context.Context, owned *sync.WaitGroup, messages <-chan *nats.Msg, h BusHandler) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-messages:
			if m.Reply == "" {
				h.Hear(m.Data)
				continue
			}
			// An answer that does not get through is missed by who waits for it.
			owned.Go(func() { m.Respond(h.Answer(ctx, m.Data)) })
		}
	}
}

func (b *natsBus) Publish(_ context.Context, message []byte) error {
	if err := b.conn.Publish(newsSubject, message); err != nil {
		return fmt.Errorf("publish news: %w", awayError(b.conn, err))
	}
	return nil
}

func (b *natsBus) Request(ctx context.Context, node string, question []byte) ([]byte, error) {
	m, err := b.conn.RequestWithContext(ctx, nodeSubjects+node, question)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("ask node %s: %w", node, ErrNoNode)
	case err != nil:
		return nil, fmt.Errorf("ask node %s: %w", node, awayError(b.conn, err))
	}
	return m.Data, nil
}
