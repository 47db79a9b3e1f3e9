package record

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

// pair is a TLS connection, with a Conn under its server.
func pair(t *testing.T) (client, server *tls.Conn, under *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	under = New(far)
	pki := identitytest.New(time.Now())
	leaf := pki.Leaf(identity.RelayName("r1"), -time.Hour, time.Hour)
	server = tls.Server(under, &tls.Config{Certificates: []tls.Certificate{leaf}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
	client = tls.Client(near, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server, under
}

// What follows a record on the socket is still there when TLS has returned the record, however much arrived with it.
func TestReadsNoByteBeyondARecord(t *testing.T) {
	client, server, under := pair(t)
	for _, size := range []int{1, 100, 16 << 10} {
		want := bytes.Repeat([]byte{'x'}, size)
		client.Write(want)
	}
	client.NetConn().Write([]byte("after TLS"))
	client.NetConn().(*net.TCPConn).CloseWrite()
	if _, err := io.ReadFull(server, make([]byte, 101+16<<10)); err != nil {
		t.Fatal(err)
	}
	if !under.Between() {
		t.Error("it is in the middle of a record")
	}
	if b, err := io.ReadAll(under.Raw()); string(b) != "after TLS" || err != nil {
		t.Errorf("%q is left, %v", b, err)
	}
}

func TestThroughReadsAhead(t *testing.T) {
	client, server, under := pair(t)
	under.Through()
	client.Write([]byte("one"))
	client.NetConn().Write([]byte("garbage, which is as long as a header"))
	client.NetConn().(*net.TCPConn).CloseWrite()
	if _, err := io.ReadFull(server, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("garbage was read")
	}
}

// A tls.Conn whose reader fails says so to its peer. Behind the gate it does not, and what was written to the socket
// follows the last record.
func TestNothingOfTLSIsWrittenBehindTheGate(t *testing.T) {
	client, server, under := pair(t)
	server.Write([]byte("last"))
	under.Shut()
	under.Raw().Write([]byte("raw"))
	client.NetConn().Write([]byte("\x17\x03\x03\x00\x05wrong"))
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Fatal("a wrong record was read")
	}
	server.Close() // would send close_notify
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	under.Close()
	// The client's TLS takes "raw" for the beginning of a record; anything after it would show as more.
	if b, _ := io.ReadAll(client.NetConn()); len(b) > 3 {
		t.Errorf("%q was written", b)
	}
}

// What was read before comes first, and then what is on the connection, record by record.
func TestReplaysWhatWasRead(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		near.Write([]byte("\x17\x03\x03\x00\x02abrest"))
		near.Close()
	}()
	c := Replay(far, []byte("\x16\x03\x03\x00\x01x"))
	got := make([]byte, 13)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "\x16\x03\x03\x00\x01x\x17\x03\x03\x00\x02ab" || !c.Between() {
		t.Errorf("read %q, %v", got, err)
	}
	if rest, err := io.ReadAll(c.Raw()); err != nil || string(rest) != "rest" {
		t.Errorf("left on the connection is %q, %v", rest, err)
	}
}

func TestReadsNoMoreThanItsBound(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go near.Write(bytes.Repeat([]byte("\x17\x03\x03\x00\x04abcd"), 3))
	c := New(far)
	c.Bound(14)
	if got, err := io.ReadAll(c); len(got) != 14 || !errors.Is(err, ErrBound) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	c.Bound(-1)
	if _, err := io.ReadFull(c, make([]byte, 13)); err != nil {
		t.Errorf("without a bound: %v", err)
	}
}
