package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"hawser/transport"
)

func TestRefusalSurvivesTheWire(t *testing.T) {
	for _, want := range []Refusal{
		{Reason: transport.Busy, Text: "later, please", RetryAfter: time.Minute},
		{Reason: transport.Policy},
	} {
		if got := sent(t, want); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// sent is what becomes of a refusal on its way.
func sent(t *testing.T, r Refusal) Refusal {
	t.Helper()
	var b bytes.Buffer
	if err := Refuse(&b, &r); err != nil {
		t.Fatal(err)
	}
	f, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	return *f.Refusal()
}

func TestRetryAfterIsBoundedAndRoundedUp(t *testing.T) {
	for give, want := range map[time.Duration]time.Duration{
		0: 0, time.Nanosecond: time.Second, 1500 * time.Millisecond: 2 * time.Second, time.Hour: time.Hour,
		1000 * time.Hour: time.Hour, 1<<63 - 1: time.Hour, -time.Second: 0,
	} {
		if got := sent(t, Refusal{Reason: transport.Busy, RetryAfter: give}).RetryAfter; got != want {
			t.Errorf("%v became %v, want %v", give, got, want)
		}
	}
}

func TestRefusalOfAStrangerIsInert(t *testing.T) {
	t.Attr("id", "A1-input")
	unreadable := Refusal{Reason: transport.Protocol, Text: "unreadable refusal"}
	cases := []struct {
		payload string
		want    Refusal
	}{
		{`{"reason":"busy","text":"a\u001b[2Jb\nc\u0000d\u202ee"}`, Refusal{Reason: transport.Busy, Text: "a?[2Jb?c?d???e"}},
		{`{"reason":"busy","text":"` + strings.Repeat("x", 3000) + `"}`, Refusal{Reason: transport.Busy, Text: strings.Repeat("x", maxTextBytes)}},
		{`{"reason":"busy","retry_after_s":999999999999}`, Refusal{Reason: transport.Busy, RetryAfter: time.Hour}},
		{`{"reason":"busy","retry_after_s":-5}`, Refusal{Reason: transport.Busy}},
		{`{"reason":"from-the-future","more":[1]}`, Refusal{Reason: "from-the-future"}},
		{`{"reason":"busy\nroot logged in"}`, unreadable},
		{`{"reason":"` + strings.Repeat("a", 33) + `"}`, unreadable},
		{`{"reason":""}`, unreadable},
		{`{}`, unreadable},
		{`null`, unreadable},
		{`["busy"]`, unreadable},
		{`{"reason":7}`, unreadable},
		{`{"reason":"busy"`, unreadable},
		{``, unreadable},
	}
	t.Attr("cases", fmt.Sprint(len(cases)))
	for _, c := range cases {
		got := *Frame{TypeRefuse, []byte(c.payload)}.Refusal()
		if got != c.want {
			t.Errorf("%.60s: got %+v, want %+v", c.payload, got, c.want)
		}
	}
}

func TestRefusalReadsWellAsAnError(t *testing.T) {
	if got := (&Refusal{Reason: transport.Busy, Text: "later"}).Error(); got != "refused by peer: busy: later" {
		t.Error(got)
	}
	if got := (&Refusal{Reason: transport.Busy}).Error(); got != "refused by peer: busy" {
		t.Error(got)
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`{"reason":"busy","text":"later","retry_after_s":60}`))
	f.Add([]byte(`{"reason":"a\u001b","text":"\u001b[2J"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Frame{TypeRefuse, b}.Refusal()
		for _, c := range r.Error() {
			if c < ' ' || c > '~' {
				t.Fatalf("%q could act on a terminal", r.Error())
			}
		}
		if len(r.Error()) > 300 || r.RetryAfter < 0 || r.RetryAfter > time.Hour || r.Reason == "" {
			t.Fatalf("%+v is out of bounds", r)
		}
		if again := sent(t, *r); again != *r {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
