package transport

import (
	"context"
	"sync"
)

// Headers of a packet, in bytes: IP and TCP without options, which count as part of a
// segment.
const (
	headers4 = 20 + 20
	headers6 = 40 + 20
)

// LargestPacket returns the largest of some sizes of IP packets, in bytes, of which
// more than one passes to a candidate, and back: a hello of the full form needs two of
// any. It is for a path on which the full form was silent and the small one was not.
// Zero: none of them passes, or the system does not let a program choose. It blocks as
// Try does, and tries all sizes at once. It asks by whole handshakes and not by ping with DF set: raw sockets need
// root, and what swallows ICMP is just the kind of path that it is for. The answer is a number to give to the site's
// IT.
func (d *Dialer) LargestPacket(ctx context.Context, t Target, c Candidate, sizes ...int) int {
	headers := headers6
	if c.Addr.Addr().Unmap().Is4() {
		headers = headers4
	}
	passes := make([]bool, len(sizes))
	var all sync.WaitGroup
	for i, size := range sizes {
		all.Go(func() {
			conn, _ := d.Try(withSegments(ctx, size-headers), t, c.full())
			if passes[i] = conn != nil; conn != nil {
				conn.NetConn().Close() // without close_notify: nothing is sent after the handshake
			}
		})
	}
	all.Wait()
	largest := 0
	for i, size := range sizes {
		if passes[i] {
			largest = max(largest, size)
		}
	}
	return largest
}
