package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"hawser/identity/identitytest"
	"hawser/transport/mux"
	"hawser/transport/relaytest"
	"hawser/transport/wire"
)

// What the relay gets inside its own TLS, after joining, is TLS again: nothing
// of a session stands in it, neither data nor the header of a stream.
func TestRelaySeesNothingInsideItsOwnTLS(t *testing.T) {
	t.Attr("id", "A1-blind")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var mu sync.Mutex
		seen := map[bool]*bytes.Buffer{true: {}, false: {}} // by direction
		s.relay.Tamper = func(toRuntime bool, b []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			seen[toRuntime].Write(b)
			return b
		}
		_, manager := s.up(echo)
		canary := strings.Repeat("canary", 100)
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServiceTCP, Target: "192.168.10.50:502"})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			stream.Write([]byte(canary))
			if _, err := io.ReadFull(stream, make([]byte, len(canary))); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for toRuntime, b := range seen {
			for _, secret := range []string{"canarycanary", "192.168.10.50", `"service"`, "hawser://"} {
				if bytes.Contains(b.Bytes(), []byte(secret)) {
					t.Errorf("the relay sees %q (to the Runtime: %v)", secret, toRuntime)
				}
			}
			checkRecords(t, b.Bytes(), len(canary)*100)
		}
	})
}

// After the switch there is one layer of TLS, and the relay has no key to it: what the two ends send then are whole
// records, and none of them opens with any key of the relay's own TLS, at any place in the sequence.
func TestRelaysKeysOpenNothingBehindTheSwitch(t *testing.T) {
	t.Attr("id", "A1-blind")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var mu sync.Mutex
		var log bytes.Buffer
		var records [][]byte
		s.relay.KeyLog = lockedWriter{&mu, &log}
		s.relay.Carry = func(_ relaytest.Way, p relaytest.Piece) []relaytest.Piece {
			mu.Lock()
			defer mu.Unlock()
			if p.Kind == relaytest.Raw {
				records = append(records, bytes.Clone(p.B))
			}
			return []relaytest.Piece{p}
		}
		_, manager := s.up(echo)
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServiceTCP})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			stream.Write(make([]byte, 1000))
			io.ReadFull(stream, make([]byte, 1000))
		}
		mu.Lock()
		defer mu.Unlock()
		var all []byte
		for _, r := range records {
			all = append(all, r...)
		}
		checkRecords(t, all, 2*20*1000)
		keys := trafficKeys(t, log.String())
		if len(records) < 40 || len(keys) != 8 {
			t.Fatalf("%d records and %d keys", len(records), len(keys))
		}
		for i, r := range records {
			for _, k := range keys {
				for seq := range uint64(len(records) + 10) {
					if k.opens(r, seq) {
						t.Fatalf("record %d opens with a key of the relay", i)
					}
				}
			}
		}
	})
}

// With the right key a record does open, or the test above would prove nothing.
func TestTrafficKeysOpenWhatTheyAreOf(t *testing.T) {
	near, far := net.Pipe()
	var log, wire bytes.Buffer
	leaf := cert(identitytest.New(time.Now()), relayName, time.Hour)
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{leaf}, KeyLogWriter: &log, SessionTicketsDisabled: true})
	client := tls.Client(&tee{near, &wire}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	var serving sync.WaitGroup
	serving.Go(func() { io.ReadFull(server, make([]byte, 4)) })
	if _, err := client.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	serving.Wait()
	near.Close()
	opened := 0
	for _, k := range trafficKeys(t, log.String()) {
		for b := wire.Bytes(); len(b) >= 5; b = b[5+int(binary.BigEndian.Uint16(b[3:])):] {
			if k.opens(b[:5+int(binary.BigEndian.Uint16(b[3:]))], 0) {
				opened++
			}
		}
	}
	if opened != 1 {
		t.Errorf("%d records open, want the one with data", opened)
	}
}

// tee keeps what is written.
type tee struct {
	net.Conn
	to *bytes.Buffer
}

func (c *tee) Write(b []byte) (int, error) {
	c.to.Write(b)
	return c.Conn.Write(b)
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// trafficKey opens the records of one direction of a TLS 1.3 connection (RFC 8446 §5.2, §7.3).
type trafficKey struct {
	aead cipher.AEAD
	iv   []byte
}

// trafficKeys reads both directions of both ends' connections from a key log.
func trafficKeys(t *testing.T, log string) (keys []trafficKey) {
	t.Helper()
	for line := range strings.Lines(log) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.HasSuffix(fields[0], "_TRAFFIC_SECRET_0") {
			continue
		}
		secret := must(hex.DecodeString(fields[2]))
		expand := func(label string, n int) []byte {
			info := append([]byte{byte(n >> 8), byte(n), byte(len("tls13 ") + len(label))}, "tls13 "+label+"\x00"...)
			return must(hkdf.Expand(sha256.New, secret, string(info), n))
		}
		// crypto/tls takes the first one where there is hardware for AES, and else the second.
		block := must(aes.NewCipher(expand("key", 16)))
		keys = append(keys, trafficKey{must(cipher.NewGCM(block)), expand("iv", 12)},
			trafficKey{must(chacha20poly1305.New(expand("key", 32))), expand("iv", 12)})
	}
	return keys
}

func (k trafficKey) opens(record []byte, seq uint64) bool {
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(seq >> (56 - 8*i))
	}
	_, err := k.aead.Open(nil, nonce, record[5:], record[:5])
	return err == nil
}

// checkRecords wants nothing but TLS 1.3 records, and at least so many bytes of
// application data: as many as were sent.
func checkRecords(t *testing.T, b []byte, atLeast int) {
	t.Helper()
	data := 0
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if kind := b[0]; kind != 20 && kind != 22 && kind != 23 || b[1] != 3 || len(b) < 5+n {
			t.Fatalf("not a TLS record: % x", b[:5])
		} else if kind == 23 {
			data += n
		}
		b = b[5+n:]
	}
	if len(b) > 0 || data < atLeast {
		t.Errorf("%d bytes in records, %d behind them", data, len(b))
	}
}
