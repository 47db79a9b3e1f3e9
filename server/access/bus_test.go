package access

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"hawser/server/store"
)

// memoryBus is a Bus between Access Servers in one process. It stands for the network between them, in tests of what they
// do with what they receive.
type memoryBus struct {
	mu    sync.Mutex // guards nodes and, in them, running's Add
	nodes []*memoryNode
}

type memoryNode struct {
	BusHandler
	name    string
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

func (b *memoryBus) Join(node string, h BusHandler) (leave func(), err error) {
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

func (b *memoryBus) Hint() {
	for _, n := range b.enter("") {
		n.BusHandler.Hint()
		n.running.Done()
	}
}

func (b *memoryBus) Request(ctx context.Context, node string, order []byte) ([]byte, error) {
	nodes := b.enter(node)
	if len(nodes) == 0 {
		return nil, ErrNoNode
	}
	for _, n := range nodes[1:] {
		n.running.Done()
	}
	n := nodes[0]
	reply := make(chan []byte, 1)
	go func() { // owned by leave, which waits for it
		defer n.running.Done()
		reply <- n.Answer(n.life, bytes.Clone(order))
	}()
	select {
	case r := <-reply:
		return r, nil
	case <-n.life.Done():
		return nil, ErrNoNode
	case <-ctx.Done():
		return nil, store.ErrAway
	}
}
