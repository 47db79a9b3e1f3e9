package memnet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestBytesArriveInOrderAfterTheLatency(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.SetLatency(50 * time.Millisecond)
		client, server := r.pair()
		start := time.Now()
		r.write(client, "slow ")
		r.net.SetLatency(0)
		r.write(client, "fast")
		r.read(server, "slow fast")
		r.took("the bytes", start, 50*time.Millisecond)
	})
}

func TestWriteBlocksWhenTheBufferIsFull(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		payload := make([]byte, 5*BufferBytes+17)
		rand.Read(payload)
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := client.Write(payload); n != len(payload) || err != nil {
				r.Errorf("write: %d, %v", n, err)
			}
			client.Close()
		})
		synctest.Wait()
		if got := server.(*conn).size; got != BufferBytes {
			r.Errorf("%d bytes in flight, want %d", got, BufferBytes)
		}
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, payload) {
			r.Errorf("%d bytes, %v; want the payload", len(got), err)
		}
		wg.Wait()
	})
}

func TestWritesOfTwoGoroutinesDoNotMix(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		var wg sync.WaitGroup
		for _, b := range []byte{'a', 'b'} {
			wg.Go(func() { client.Write(bytes.Repeat([]byte{b}, 3*BufferBytes)) })
		}
		got := make([]byte, 6*BufferBytes)
		if _, err := io.ReadFull(server, got); err != nil {
			r.Fatal(err)
		}
		wg.Wait()
		if half := got[:3*BufferBytes]; bytes.Count(half, half[:1]) != len(half) {
			r.Error("two writes were mixed")
		}
	})
}

func TestDeadlineFiresAtExactlyItsTime(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		full := make([]byte, BufferBytes)
		r.write(client, string(full))
		for what, f := range map[string]func() error{
			"read": func() error { client.SetReadDeadline(time.Now().Add(1234567)); _, err := client.Read(full); return err },
			"write": func() error {
				client.SetWriteDeadline(time.Now().Add(1234567))
				_, err := client.Write(full)
				return err
			},
			"both": func() error { client.SetDeadline(time.Now().Add(1234567)); _, err := client.Read(full); return err },
		} {
			start := time.Now()
			r.wantErr(what, f(), os.ErrDeadlineExceeded)
			r.took(what, start, 1234567)
		}
		r.write(server, "x")
		_, err := client.Read(full)
		r.wantErr("read of waiting bytes after the deadline", err, os.ErrDeadlineExceeded)
		client.SetDeadline(time.Time{})
		r.read(client, "x")

		time.AfterFunc(time.Second, func() { client.SetReadDeadline(time.Unix(1, 0)) })
		start := time.Now()
		_, err = client.Read(full)
		r.wantErr("deadline set under a blocked read", err, os.ErrDeadlineExceeded)
		r.took("it", start, time.Second)
	})
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		r.write(client, "question")
		half := client.(interface{ CloseWrite() error })
		if err := errors.Join(half.CloseWrite(), half.CloseWrite()); err != nil {
			r.Fatal(err)
		}
		if b, err := io.ReadAll(server); string(b) != "question" || err != nil {
			r.Errorf("%q, %v", b, err)
		}
		_, err := client.Write([]byte("x"))
		r.wantErr("write after CloseWrite", err, syscall.EPIPE)
		r.write(server, "answer")
		server.Close()
		if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
			r.Errorf("%q, %v", b, err)
		}
		client.Close()
		if len(r.client.conns)+len(r.server.conns) != 0 {
			r.Error("closed connections are remembered")
		}
	})
}

func TestCloseEndsWhatIsBlocked(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		errs := make(chan error, 2)
		var wg sync.WaitGroup
		wg.Go(func() { _, err := client.Read(make([]byte, 1)); errs <- err })
		wg.Go(func() { _, err := client.Write(make([]byte, 2*BufferBytes)); errs <- err })
		synctest.Wait()
		client.Close()
		wg.Wait()
		for range 2 {
			r.wantErr("blocked call", <-errs, net.ErrClosed)
		}
		for what, err := range map[string]error{
			"close": client.Close(), "deadline": client.SetDeadline(time.Time{}), "half": client.(*conn).CloseWrite(),
		} {
			r.wantErr(what, err, net.ErrClosed)
		}
		n, err := io.Copy(io.Discard, server)
		if n != BufferBytes || err != nil {
			r.Errorf("what was sent before: %d, %v", n, err)
		}
	})
}

// A writer that is blocked when its peer closes must come back: with success, for what the kernel had taken.
func TestPeerThatClosesFreesABlockedWriter(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.SetLatency(time.Second)
		client, server := r.pair()
		time.AfterFunc(time.Minute, func() { server.Close() })
		start := time.Now()
		var err error
		for err == nil {
			_, err = client.Write(make([]byte, 100_000))
			time.Sleep(time.Millisecond)
		}
		r.wantErr("write", err, syscall.EPIPE)
		if d := time.Since(start); d < time.Minute+time.Second || d > time.Minute+2*time.Second {
			r.Errorf("learnt of it after %v", d)
		}
	})
}

func TestTLS13Works(t *testing.T) {
	bubble(t, func(r *rig) {
		cert, roots := certificate(r.T)
		r.net.SetLatency(20 * time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := tls.NewListener(r.listener, &tls.Config{Certificates: []tls.Certificate{cert}}).Accept()
			if err != nil {
				r.Error(err)
				return
			}
			io.Copy(c, c)
			c.Close()
		})
		d := tls.Client(first(r.dial(target)), &tls.Config{RootCAs: roots, ServerName: "server", MinVersion: tls.VersionTLS13})
		if err := d.HandshakeContext(context.Background()); err != nil {
			r.Fatal(err)
		}
		payload := make([]byte, 3*BufferBytes)
		wg.Go(func() { d.Write(payload); d.CloseWrite() })
		if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, payload) {
			r.Errorf("echo: %d bytes, %v", len(got), err)
		}
		d.Close()
		wg.Wait()
	})
}

func first(c net.Conn, err error) net.Conn {
	if err != nil {
		panic(err)
	}
	return c
}

// certificate is made inside the bubble, whose clock starts in 2000.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"server"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
