package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"

	"hawser/transport"
)

func TestVectorsAreReadAndWrittenBack(t *testing.T) {
	j, seen := newJudge(), map[string]bool{}
	for _, v := range vectors(t) {
		seen[v.name] = true
		more := append(slices.Clone(v.raw), "next"...)
		r := bytes.NewReader(more)
		f, err := Read(r)
		name, payload, rest, fault := j.verdict(more)
		if err != nil || fault != "" || name != v.name || !bytes.Equal(f.Payload, payload) || f.Type != Type(v.raw[0]) {
			t.Fatalf("%s: read %v, %v; the judge says %s %q %s", v.name, f, err, name, payload, fault)
		}
		if r.Len() != len("next") || string(rest) != "next" {
			t.Errorf("%s: %d bytes are left, want 4: it read too far", v.name, r.Len())
		}
		var out bytes.Buffer
		if err := Write(&out, f.Type, f.Payload); err != nil || !bytes.Equal(out.Bytes(), v.raw) {
			t.Errorf("%s: wrote %x, %v, want %x", v.name, out.Bytes(), err, v.raw)
		}
	}
	for _, r := range j {
		if !seen[r.name] {
			t.Errorf("no vector for %s", r.name)
		}
	}
}

func TestFrameTruncatedAnywhereIsRefused(t *testing.T) {
	cases := 0
	for _, v := range vectors(t) {
		for n := range len(v.raw) {
			cases++
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if f, err := Read(bytes.NewReader(v.raw[:n])); err != want {
				t.Errorf("%s cut after %d bytes: got %v, %v, want %v", v.name, n, f, err, want)
			}
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(cases))
}

func TestLengthThatLiesIsRefused(t *testing.T) {
	j, cases := newJudge(), 0
	for kind := range 256 {
		r, known := j[byte(kind)]
		for _, n := range []int{0, 1, r.limit, r.limit + 1, 1<<24 - 1} {
			cases++
			head := []byte{byte(kind), byte(n >> 16), byte(n >> 8), byte(n)}
			_, err := Read(bytes.NewReader(head))
			if bad := !known || n > r.limit; bad != errors.Is(err, ErrFrame) {
				t.Errorf("type %#02x with length %d: %v", kind, n, err)
			} else if !bad && n > 0 && err != io.ErrUnexpectedEOF {
				t.Errorf("type %#02x with length %d and no payload: %v", kind, n, err)
			}
			if _, err := Read(io.MultiReader(bytes.NewReader(head), bytes.NewReader(make([]byte, n)))); (err == nil) != (known && n <= r.limit) {
				t.Errorf("type %#02x with %d bytes: %v", kind, n, err)
			}
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(cases))
}

func TestOversizedLengthAllocatesNothingBig(t *testing.T) {
	var big [][]byte
	for kind := range 256 {
		big = append(big, []byte{byte(kind), 0xff, 0xff, 0xff})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, head := range big {
		if _, err := Read(bytes.NewReader(head)); !errors.Is(err, ErrFrame) {
			t.Error(err)
		}
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / uint64(len(big)); per > 4<<10 {
		t.Errorf("%d bytes allocated for a frame of 16 MiB that was refused", per)
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(big)))
}

func TestWriteRefusesWhatNobodyWouldRead(t *testing.T) {
	for kind, r := range newJudge() {
		if err := Write(io.Discard, Type(kind), make([]byte, r.limit+1)); err == nil {
			t.Errorf("%s of %d bytes was written", r.name, r.limit+1)
		}
		if err := Write(io.Discard, Type(kind), make([]byte, r.limit)); err != nil {
			t.Errorf("%s of %d bytes: %v", r.name, r.limit, err)
		}
	}
	if err := Write(io.Discard, 0x05, nil); err == nil {
		t.Error("a type that nobody has was written")
	}
	if err := WriteJSON(io.Discard, TypeJoin, func() {}); err == nil {
		t.Error("a function was encoded")
	}
}

func TestFrameIsOneWrite(t *testing.T) {
	var w countingWriter
	if err := WriteJSON(&w, TypeJoin, Join{Grant: "a.b.c"}); err != nil || w != 1 {
		t.Errorf("%d writes, %v, want 1: each would be a TLS record", w, err)
	}
}

type countingWriter int

func (w *countingWriter) Write(b []byte) (int, error) { *w++; return len(b), nil }

func TestExpectTellsRefusalFromNonsense(t *testing.T) {
	frame := func(t Type, payload string) io.Reader {
		var b bytes.Buffer
		Write(&b, t, []byte(payload))
		return &b
	}
	if _, err := Expect(frame(TypePong, ""), TypePong); err != nil {
		t.Error(err)
	}
	_, err := Expect(frame(TypeRefuse, `{"reason":"busy"}`), TypePong)
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != transport.Busy || transport.ReasonOf(err) != transport.Busy {
		t.Errorf("refusal came as %v", err)
	}
	_, err = Expect(frame(TypePaired, ""), TypePong)
	if !errors.Is(err, ErrFrame) || transport.ReasonOf(err) != transport.Protocol {
		t.Errorf("another type came as %v", err)
	}
	if f, err := Expect(frame(TypeRefuse, `{"reason":"busy"}`), TypeRefuse); err != nil || f.Type != TypeRefuse {
		t.Errorf("a refusal that was expected: %v, %v", f, err)
	}
	if _, err = Expect(bytes.NewReader(nil), TypePong); err != io.EOF {
		t.Errorf("nothing came as %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.raw)
	}
	f.Add([]byte{0x22, 0xff, 0xff, 0xff})
	j := newJudge()
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Read(bytes.NewReader(b))
		_, payload, rest, fault := j.verdict(b)
		switch {
		case fault == "" && (err != nil || !bytes.Equal(got.Payload, payload)):
			t.Fatalf("got %v, %v; the judge says %q", got, err, payload)
		case fault == "bad" && !errors.Is(err, ErrFrame), fault == "short" && (err == nil || errors.Is(err, ErrFrame)):
			t.Fatalf("got %v; the judge says %s", err, fault)
		case fault != "":
			return
		}
		var out bytes.Buffer
		if err := Write(&out, got.Type, got.Payload); err != nil || !bytes.Equal(out.Bytes(), b[:len(b)-len(rest)]) {
			t.Fatalf("wrote %x, %v, read %x", out.Bytes(), err, b)
		}
	})
}
