package board

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// message is a route message as the kernel writes it.
func message(kind uint16, data ...any) []byte {
	var body bytes.Buffer
	for _, d := range data {
		binary.Write(&body, binary.NativeEndian, d)
	}
	var b bytes.Buffer
	binary.Write(&b, binary.NativeEndian, unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + body.Len()), Type: kind})
	b.Write(body.Bytes())
	return b.Bytes()
}

func linkMessage(kind uint16, index int32, flags uint32) []byte {
	return message(kind, unix.IfInfomsg{Index: index, Flags: flags})
}

func addrMessage(kind uint16, addr string) []byte {
	a := netip.MustParseAddr(addr).AsSlice()
	return message(kind, unix.IfAddrmsg{Index: 2}, unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(a)), Type: unix.IFA_ADDRESS}, a)
}

const carrier = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP

func TestLinkUpIsToldOnceACarrierComes(t *testing.T) {
	c := links{map[int32]bool{2: true}, map[netip.Addr]bool{}}
	for i, step := range []struct {
		message []byte
		want    bool
	}{
		{linkMessage(unix.RTM_NEWLINK, 2, carrier), false},     // no news
		{linkMessage(unix.RTM_NEWLINK, 2, unix.IFF_UP), false}, // cable out
		{linkMessage(unix.RTM_NEWLINK, 3, 0), false},
		{linkMessage(unix.RTM_NEWLINK, 2, carrier), true}, // and in
		{linkMessage(unix.RTM_NEWLINK, 2, carrier), false},
		{linkMessage(unix.RTM_DELLINK, 3, 0), false},
		{linkMessage(unix.RTM_NEWLINK, 3, carrier), true}, // another one of that number
		{addrMessage(unix.RTM_NEWADDR, "2001:db8::7"), true},
		{addrMessage(unix.RTM_NEWADDR, "2001:db8::7"), false}, // its lifetime is renewed
		{addrMessage(unix.RTM_NEWADDR, "192.0.2.7"), true},
		{addrMessage(unix.RTM_DELADDR, "192.0.2.7"), false},
		{addrMessage(unix.RTM_NEWADDR, "192.0.2.7"), true},
		{message(unix.RTM_NEWADDR, unix.IfAddrmsg{Index: 2}), false}, // no address
		{append(linkMessage(unix.RTM_NEWLINK, 2, 0), linkMessage(unix.RTM_NEWLINK, 2, carrier)...), true},
		{message(unix.RTM_NEWLINK, uint32(0)), false}, // too short
		{message(unix.RTM_NEWADDR, uint32(0)), false},
		{message(unix.RTM_NEWADDR, unix.IfAddrmsg{}, unix.RtAttr{Len: 7, Type: 9}, [3]byte{}), false}, // no padding
		{message(unix.RTM_NEWADDR, unix.IfAddrmsg{}, unix.RtAttr{Len: 99, Type: unix.IFA_ADDRESS}), false},
		{[]byte{1, 2, 3}, false},
		{nil, false},
	} {
		if got := c.cameUp(step.message); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func FuzzLinkMessage(f *testing.F) {
	f.Add(linkMessage(unix.RTM_NEWLINK, 2, carrier))
	f.Add(addrMessage(unix.RTM_NEWADDR, "192.0.2.7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := links{map[int32]bool{}, map[netip.Addr]bool{}}
		c.cameUp(b)
		if len(c.running)+len(c.addrs) > len(b) {
			t.Fatal("more links than bytes")
		}
	})
}
