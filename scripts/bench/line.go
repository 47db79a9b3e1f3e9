//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// route says what a line is like.
type route struct {
	rtt   time.Duration // half of it in each direction
	rate  int           // bytes a second in each direction; 0: no limit
	queue time.Duration // how much waits for its turn before packets are lost
}

// minQueue is what a line keeps whatever its rate: less than a burst of a start would make every start lose.
const minQueue = 12 << 10

// line carries packets between two devices, late.
type line struct {
	ends [2]*os.File
	route
}

func newLine(a, b *os.File, r route) *line { return &line{ends: [2]*os.File{a, b}, route: r} }

// run returns when the line is closed.
func (l *line) run() {
	var both sync.WaitGroup
	both.Go(func() { l.carry(l.ends[0], l.ends[1]) })
	both.Go(func() { l.carry(l.ends[1], l.ends[0]) })
	both.Wait()
}

func (l *line) close() {
	for _, f := range l.ends {
		f.Close()
	}
}

type packet struct {
	due   time.Time
	bytes []byte
}

// carry is one direction.
func (l *line) carry(dst, src *os.File) {
	late := make(chan packet, 1<<16) // more than the queue of any line here holds
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range late {
			time.Sleep(time.Until(p.due))
			dst.Write(p.bytes) // a device that is down loses it, as a cable would
		}
	})
	defer writing.Wait()
	defer close(late)
	s := schedule{route: l.route}
	for buf := make([]byte, 64<<10); ; {
		n, err := src.Read(buf)
		if errors.Is(err, os.ErrClosed) || err != nil {
			return
		}
		if due, ok := s.next(time.Now(), n); ok {
			late <- packet{due, append([]byte(nil), buf[:n]...)}
		}
	}
}

// schedule is when packets leave one direction of a line.
type schedule struct {
	route
	free time.Time // when the last packet has left
}

// next gives the time at which a packet arrives at the other end, or says that it is lost.
func (s *schedule) next(now time.Time, bytes int) (due time.Time, ok bool) {
	if s.free.Before(now) {
		s.free = now
	}
	if s.rate > 0 {
		waits := max(s.queue, time.Duration(minQueue)*time.Second/time.Duration(s.rate))
		if s.free.Sub(now) > waits {
			return time.Time{}, false
		}
		s.free = s.free.Add(time.Duration(bytes) * time.Second / time.Duration(s.rate))
	}
	return s.free.Add(s.rtt / 2), true
}

// routeMessage is RTM_NEWROUTE of rtnetlink(7) for one host.
func routeMessage(dst, via netip.Addr) []byte {
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg, 64)
	for _, a := range []struct {
		kind uint16
		addr netip.Addr
	}{{unix.RTA_DST, dst}, {unix.RTA_GATEWAY, via}} {
		raw := a.addr.As4()
		m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(raw)))
		m = binary.NativeEndian.AppendUint16(m, a.kind)
		m = append(m, raw[:]...)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.RTM_NEWROUTE)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	binary.NativeEndian.PutUint32(m[8:], 1)
	copy(m[unix.SizeofNlMsghdr:], []byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST})
	return m
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
