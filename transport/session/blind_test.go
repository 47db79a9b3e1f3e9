package session

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

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
		s.tamper = func(toRuntime bool, b []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			seen[toRuntime].Write(b)
			return b
		}
		_, manager := s.up(echo)
		canary := strings.Repeat("canary", 100)
		stream, err := manager.Open(t.Context(), wire.Open{Service: wire.ServiceTCP, Target: "192.168.10.50:502"})
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
