package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// rule is a row of the table of wire §2.2, in this file's own words.
type rule struct {
	name  string
	limit int
}

// judge is a second decoder, written from the specification alone. It takes one frame from the front of b.
type judge map[byte]rule

func newJudge() judge {
	return judge{
		0x01: {"time-request", 48}, 0x02: {"time", 4096}, 0x03: {"floor-reset", 118}, 0x04: {"refused-keys", 4096},
		0x10: {"enroll", 16384}, 0x11: {"renew", 16384}, 0x12: {"identity", 65536},
		0x20: {"hello", 16384}, 0x21: {"welcome", 65536}, 0x22: {"pool", 65536}, 0x23: {"offer", 16384},
		0x24: {"offer-ack", 4096}, 0x25: {"end-session", 4096}, 0x26: {"ping", 4}, 0x27: {"pong", 0},
		0x28: {"revoked", 65536}, 0x29: {"time-again", 48},
		0x2a: {"measurements", 16384}, 0x2b: {"load", 4096}, 0x2c: {"measure", 0}, 0x2e: {"statements", 98304}, 0x30: {"echo", 1024},
		0x40: {"join", 8192}, 0x41: {"paired", 0}, 0x42: {"data", 16380}, 0x43: {"switch", 0},
		0x63: {"join-state", 4096}, 0x64: {"join-state-ack", 4096}, 0x65: {"fresh-key", 16384},
		0x66: {"session-report", 4096}, 0x67: {"session-report-ack", 4096},
		0x7f: {"refuse", 4096},
	}
}

// verdict is what the judge says: a frame and the rest, or one of the words short and bad.
func (j judge) verdict(b []byte) (name string, payload, rest []byte, fault string) {
	if len(b) < 4 {
		return "", nil, nil, "short"
	}
	length := int(b[1])*65536 + int(b[2])*256 + int(b[3])
	r, known := j[b[0]]
	if !known || length > r.limit {
		return "", nil, nil, "bad"
	}
	if len(b)-4 < length {
		return "", nil, nil, "short"
	}
	return r.name, b[4 : 4+length], b[4+length:], ""
}

// vector is a line of testdata/frames.txt.
type vector struct {
	name string
	raw  []byte
	text string // JSON, or empty
}

func vectors(tb testing.TB) (list []vector) {
	tb.Helper()
	file, err := os.ReadFile("testdata/frames.txt")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		left, text, isJSON := strings.Cut(strings.TrimSpace(line), " = ")
		field := strings.Fields(left)
		if len(field) != 2 || isJSON != json.Valid([]byte(text)) {
			tb.Fatalf("bad vector: %s", line)
		}
		if isJSON {
			field[1] += fmt.Sprintf("%06x%x", len(text), text)
		}
		raw, err := hex.DecodeString(field[1])
		if err != nil {
			tb.Fatalf("vector %s: %v", field[0], err)
		}
		list = append(list, vector{field[0], raw, text})
	}
	return list
}
