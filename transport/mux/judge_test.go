package mux

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"hawser/transport/wire"
)

// rule is a row of the table of session §3.2, in this file's own words.
type rule struct {
	name         string
	least, limit int
	stream       bool
	only         wire.Role // the end that may get it; empty: both
}

// judge is a second decoder, written from the specification alone. It takes one frame from the front of b.
type judge map[byte]rule

func newJudge() judge {
	return judge{
		0x01: {"hello", 0, 24576, false, ""}, 0x02: {"resume", 41, 41, false, ""},
		0x03: {"use", 0, 0, false, "runtime"},
		0x04: {"ack", 16, 16, false, ""}, 0x05: {"ping", 8, 8, false, ""}, 0x06: {"pong", 8, 8, false, ""},
		0x07: {"chain", 0, 24576, false, ""}, 0x08: {"statements", 1, 16384, false, ""},
		0x81: {"open", 0, 4096, true, "runtime"}, 0x82: {"opened", 0, 4096, true, "manager"},
		0x83: {"refused", 0, 4096, true, "manager"}, 0x84: {"data", 0, 16376, true, ""},
		0x85: {"credit", 8, 8, true, ""},
		0x86: {"fin", 0, 0, true, ""}, 0x87: {"reset", 0, 4096, true, ""}, 0x88: {"end", 0, 4096, false, ""},
		0x89: {"data-ask", 0, 16376, true, ""},
	}
}

// verdict is what the judge says: a frame and the rest, or one of the words short and bad.
func (j judge) verdict(b []byte, receiver wire.Role) (name string, stream uint32, payload, rest []byte, fault string) {
	if len(b) < 8 {
		return "", 0, nil, nil, "short"
	}
	length := int(b[1])*65536 + int(b[2])*256 + int(b[3])
	stream = uint32(b[4])*16777216 + uint32(b[5])*65536 + uint32(b[6])*256 + uint32(b[7])
	r, known := j[b[0]]
	allowed := r.only == "" || r.only == receiver
	if !known || !allowed || length < r.least || length > r.limit || r.stream == (stream == 0) {
		return "", 0, nil, nil, "bad"
	}
	if len(b)-8 < length {
		return "", 0, nil, nil, "short"
	}
	return r.name, stream, b[8 : 8+length], b[8+length:], ""
}

// vector is a line of testdata/frames.txt.
type vector struct {
	name      string
	receivers []wire.Role
	raw       []byte
	text      string // JSON, or empty
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
		v := vector{name: field[0], text: text, receivers: []wire.Role{wire.Role(field[1])}}
		if field[1] == "both" {
			v.receivers = []wire.Role{wire.RoleRuntime, wire.RoleManager}
		}
		raw := strings.Join(field[2:], "")
		if isJSON {
			raw = fmt.Sprintf("%s%06x%s%x", field[2], len(text), field[3], text)
		}
		if v.raw, err = hex.DecodeString(raw); err != nil {
			tb.Fatalf("vector %s: %v", v.name, err)
		}
		list = append(list, v)
	}
	return list
}
