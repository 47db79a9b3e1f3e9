package access

import (
	"context"
	"errors"
)

// Bus carries messages between the Access Servers that share a Store, its
// nodes (access §9). What it carries is news, never the only copy of anything: a
// message may be lost, and then Missed is called sooner or later. Its methods
// may be called concurrently.
type Bus interface {
	// Attend makes this process a node: it hears what is published, also by
	// itself, and answers what is asked of it, until leave, which waits for
	// handlers that still run.
	Attend(node string, h BusHandler) (leave func(), err error)
	// Publish sends a message to all nodes and does not wait for them. ErrAway:
	// the Bus does not work now.
	Publish(ctx context.Context, message []byte) error
	// Request asks one node and waits for its answer, as long as ctx allows.
	// ErrNoNode: there is no such node now. ErrAway: no answer came.
	Request(ctx context.Context, node string, question []byte) (answer []byte, err error)
}

// ErrNoNode says that nobody of that name attends.
var ErrNoNode = errors.New("no such node")

// BusHandler is what a node does with messages. All three must be set.
type BusHandler struct {
	Hear   func(message []byte)                              // one after the other; must not block
	Answer func(ctx context.Context, question []byte) []byte // concurrently; ctx ends when the node leaves
	Missed func()                                            // messages may have been lost; must not block
}
