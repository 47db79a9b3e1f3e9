package probe

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"
)

const (
	judgedSpoofs = 1_000_000
	sentSpoofs   = 10_000
)

// An attacker who cannot see the query floods its socket: he knows everything
// of a good answer but the 64 random bits.
func TestNoneOfAMillionSpoofedRepliesIsAccepted(t *testing.T) {
	t.Attr("id", "K3")
	t.Attr("cases", fmt.Sprint(judgedSpoofs))
	query := make([]byte, packetBytes)
	query[0] = 4<<3 | 3
	rand.Read(query[transmitStamp:])
	p := truthful(query, time.Now()).encode()
	if !answers(query, p) {
		t.Fatal("a good answer is refused: this shows nothing")
	}
	r := mathrand.New(mathrand.NewPCG(3, 3))
	own, accepted := binary.BigEndian.Uint64(query[transmitStamp:]), 0
	for n := range judgedSpoofs {
		guess := r.Uint64()
		switch n % 4 { // near misses, too
		case 1:
			guess = own ^ 1<<(n%64)
		case 2:
			guess = own + uint64(n%1000) + 1
		case 3:
			guess = uint64(n)
		}
		if guess == own {
			guess++
		}
		binary.BigEndian.PutUint64(p[originStamp:], guess)
		if answers(query, p) {
			accepted++
		}
	}
	if accepted != 0 {
		t.Errorf("%d accepted", accepted)
	}
}

// The same through the socket: ten thousand before the true answer.
func TestAFloodOfSpoofedRepliesHidesNoTrueOne(t *testing.T) {
	t.Attr("id", "K3")
	t.Attr("cases", fmt.Sprint(sentSpoofs))
	timeBubble(t, func(r *timeRig) {
		truth := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		r.server("203.0.113.1", func(query []byte) (list [][]byte) {
			for n := range sentSpoofs {
				lie := truthful(query, truth.AddDate(10, 0, 0))
				lie.origin += uint64(n) + 1
				if n%100 == 0 {
					lie.stratum, lie.kiss = 0, "DENY" // K4: a forged kiss is no kiss
				}
				list = append(list, lie.encode())
			}
			return append(list, truthful(query, truth).encode())
		})
		s := r.sntp.Query(r.t.Context(), "203.0.113.1")
		if s.Err != nil || s.Kiss != "" || s.At.Sub(truth).Abs() > time.Second {
			t.Errorf("got %+v", s)
		}
	})
}

// Who guesses the port but not the bits gets nothing in, and cannot stop it
// with a kiss; the true server can.
func TestAKissIsBelievedFromTheTrueServerAlone(t *testing.T) {
	t.Attr("id", "K4")
	t.Attr("cases", "6")
	for _, code := range []string{"DENY", "RSTR", "RATE"} {
		for _, genuine := range []bool{true, false} {
			timeBubble(t, func(r *timeRig) {
				truth := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
				r.server("203.0.113.1", func(query []byte) [][]byte {
					kiss := truthful(query, truth)
					kiss.stratum, kiss.kiss = 0, code
					if !genuine {
						kiss.origin ^= 1
					}
					return [][]byte{kiss.encode(), truthful(query, truth).encode()}
				})
				s := r.sntp.Query(r.t.Context(), "203.0.113.1")
				if got := s.Kiss == code; got != genuine || s.Err != nil {
					t.Errorf("%s, genuine %v: %+v", code, genuine, s)
				}
			})
		}
	}
}
