package probetest

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

const packetBytes = 48

// ServeTime answers on pc until the end of the test, as a good server of stratum 2 whose clock is now.
func ServeTime(t testing.TB, pc net.PacketConn, now func() time.Time) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1024)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= packetBytes {
				pc.WriteTo(timeAnswer(b[:n], now()), from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
}

// timeAnswer is an NTPv4 answer (RFC 5905 §7.3).
func timeAnswer(query []byte, now time.Time) []byte {
	const unixEpoch = 2_208_988_800 // in seconds since 1900
	stamp := uint64(uint32(now.Unix()+unixEpoch))<<32 | uint64(now.Nanosecond())<<32/1e9
	b := make([]byte, packetBytes)
	b[0], b[1] = 4<<3|4, 2
	copy(b[24:32], query[40:48])
	binary.BigEndian.PutUint64(b[32:], stamp)
	binary.BigEndian.PutUint64(b[40:], stamp)
	return b
}
