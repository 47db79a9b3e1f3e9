package memnet

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sockets are a server's UDP port 53 and a client connected to it.
func (r *rig) sockets() (server net.PacketConn, client net.Conn) {
	r.Helper()
	server, err := r.server.ListenPacket(53)
	if err != nil {
		r.Fatal(err)
	}
	client, err = r.client.DialContext(r.Context(), "udp", "192.0.2.1:53")
	if err != nil {
		r.Fatal(err)
	}
	return server, client
}

func TestDatagramsKeepTheirBoundaries(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.SetLatency(30 * time.Millisecond)
		server, client := r.sockets()
		if _, ok := client.(net.PacketConn); !ok {
			r.Error("a udp connection is no net.PacketConn")
		}
		start, b := time.Now(), make([]byte, 5)
		r.write(client, "one")
		r.write(client, "too long")
		for _, want := range []string{"one", "too l"} {
			n, from, err := server.ReadFrom(b)
			if err != nil || string(b[:n]) != want || from.String() != client.LocalAddr().String() {
				r.Fatalf("%q from %v, %v; want %q", b[:n], from, err, want)
			}
		}
		r.took("the question", start, 30*time.Millisecond)
		if _, err := server.WriteTo([]byte("reply"), client.LocalAddr()); err != nil {
			r.Fatal(err)
		}
		r.read(client, "reply")
	})
}

func TestConnectedSocketHearsItsPeerAlone(t *testing.T) {
	bubble(t, func(r *rig) {
		_, client := r.sockets()
		stranger, err := r.server.ListenPacket(0)
		if err != nil {
			r.Fatal(err)
		}
		stranger.WriteTo([]byte("forged"), client.LocalAddr())
		r.silent(client)
		_, err = client.(net.PacketConn).WriteTo([]byte("x"), stranger.LocalAddr())
		r.wantErr("WriteTo on a connection", err, net.ErrWriteToConnected)
		_, err = stranger.(net.Conn).Write([]byte("x"))
		r.wantErr("Write without a peer", err, syscall.EDESTADDRREQ)
	})
}

// silent expects that nothing comes within a second, and that the deadline is exact.
func (r *rig) silent(c net.Conn) {
	r.Helper()
	start := time.Now()
	c.SetReadDeadline(start.Add(time.Second))
	_, err := c.Read(make([]byte, 9))
	r.wantErr("read", err, os.ErrDeadlineExceeded)
	r.took("silence", start, time.Second)
}

func TestDatagramsVanishWithoutAnError(t *testing.T) {
	for name, breakIt := range map[string]func(r *rig, server net.PacketConn){
		"closed port": func(r *rig, server net.PacketConn) { server.Close() },
		"cut":         func(r *rig, _ net.PacketConn) { r.net.Cut(clientAddr, serverAddr) },
		"stall":       func(r *rig, _ net.PacketConn) { r.net.Stall(clientAddr, serverAddr) },
		"power cut":   func(r *rig, _ net.PacketConn) { r.server.Down() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				server, client := r.sockets()
				breakIt(r, server)
				r.write(client, "question")
				r.silent(client)
				if _, err := r.client.DialContext(r.Context(), "udp", "192.0.2.99:53"); err != nil {
					r.Errorf("nobody's address: %v", err)
				}
			})
		})
	}
}

func TestSocketLimitsAndErrors(t *testing.T) {
	bubble(t, func(r *rig) {
		server, client := r.sockets()
		_, err := r.server.ListenPacket(53)
		r.wantErr("taken port", err, syscall.EADDRINUSE)
		_, err = client.Write(make([]byte, maxDatagram+1))
		r.wantErr("too large", err, syscall.EMSGSIZE)
		_, err = server.WriteTo(nil, &net.TCPAddr{})
		r.wantErr("address of another kind", err, syscall.EINVAL)
		_, err = server.WriteTo(nil, &net.UDPAddr{IP: net.ParseIP("2001:db8::1")})
		r.wantErr("other family", err, syscall.ENETUNREACH)
		_, err = r.client.DialContext(r.Context(), "udp", "[2001:db8::1]:53")
		r.wantErr("dial of another family", err, syscall.ENETUNREACH)

		for range 1 + maxQueued/60_000 {
			r.write(client, strings.Repeat("x", 60_000))
		}
		if size := server.(*packetConn).size; size > maxQueued {
			r.Errorf("%d bytes queued, limit %d", size, maxQueued)
		}

		time.AfterFunc(time.Second, func() { client.Close() })
		_, err = client.Read(nil)
		r.wantErr("close under a blocked read", err, net.ErrClosed)
		for what, err := range map[string]error{"close": client.Close(), "deadline": client.SetDeadline(time.Now())} {
			r.wantErr(what, err, net.ErrClosed)
		}
	})
}
