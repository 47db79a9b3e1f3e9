package access

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

// NewBus returns a Bus between the nodes of one process: of a single Access
// Server with itself, or of several in a test.
func NewBus() Bus { return new(memoryBus) }

type memoryBus struct {
	mu    sync.Mutex // guards nodes and, in them, running's Add
	nodes []*memoryNode
}

type memoryNode struct {
	BusHandler
	name    string
	hearing sync.Mutex // one message after the other
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

func (b *memoryBus) Attend(node string, h BusHandler) (leave func(), err error) {
	n := &memoryNode{BusHandler: h, name: node}
	n.life, n.end = context.WithCancel(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = append(b.nodes, n)
	return func() {
		b.mu.Lock()
		b.nodes = slices.DeleteFunc(b.nodes, func(m *memoryNode) bool { return m == n })
		b.mu.Unlock()
		n.end()
		n.running.Wait()
	}, nil
}

// enter returns the nodes of that name, or all for "", which the caller lets go.
func (b *memoryBus) enter(name string) (nodes []*memoryNode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.nodes {
		if name == "" || n.name == name {
			n.running.Add(1)
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (b *memoryBus) Publish(_ context.Context, message []byte) error {
	for _, n := range b.enter("") {
		n.hear(bytes.Clone(message))
	}
	return nil
}

func (n *memoryNode) hear(message []byte) {
	defer n.running.Done()
	n.hearing.Lock()
	defer n.hearing.Unlock()
	n.Hear(message)
}

func (b *memoryBus) Request(ctx context.Context, node string, question []byte) ([]byte, error) {
	nodes := b.enter(node)
	if len(nodes) == 0 {
		return nil, ErrNoNode
	}
	for _, n := range nodes[1:] {
		n.running.Done()
	}
	n := nodes[0]
	answer := make(chan []byte, 1)
	go func() { // owned by leave, which waits for it
		defer n.running.Done()
		answer <- n.Answer(n.life, bytes.Clone(question))
	}()
	select {
	case a := <-answer:
		return a, nil
	case <-n.life.Done():
		return nil, ErrNoNode
	case <-ctx.Done():
		return nil, ErrAway
	}
}
