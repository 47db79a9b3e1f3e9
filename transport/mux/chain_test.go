package mux

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
)

func TestAChainIsShownInTheMiddleOfALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), echo)
		s := p.open()
		defer s.Close()
		want := Chain{Certificates: "-----BEGIN", Statements: []string{"user", "key"}}
		if err := p.manager.Renew(want); err != nil {
			t.Fatal(err)
		}
		got, err := p.runtime.Renewed(t.Context())
		if err != nil || got.Certificates != want.Certificates || !slices.Equal(got.Statements, want.Statements) {
			t.Errorf("%+v, %v", got, err)
		}
		// A stream that was open is as it was.
		s.Write([]byte("x"))
		if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := p.runtime.Renewed(ctx); err == nil {
			t.Errorf("once more: %+v", got)
		}
	})
}

// Whoever sends many makes the other end keep one.
func TestOfSeveralChainsTheNewestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), echo)
		for i := range maxChains {
			if err := p.manager.Renew(Chain{Certificates: fmt.Sprint("chain ", i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if got, err := p.runtime.Renewed(t.Context()); err != nil || got.Certificates != fmt.Sprint("chain ", maxChains-1) {
			t.Errorf("%+v, %v", got, err)
		}
		if err := p.manager.Renew(Chain{Certificates: "x"}); transport.ReasonOf(err) != transport.Protocol {
			t.Errorf("one more: %v", err)
		}
		if p.manager.Err() != nil || p.runtime.Err() != nil {
			t.Errorf("the line ended: %v, %v", p.manager.Err(), p.runtime.Err())
		}
		p.manager.Close()
		if _, err := p.runtime.Renewed(t.Context()); transport.ReasonOf(err) != transport.Closed {
			t.Errorf("after the end: %v", err)
		}
		if err := p.manager.Renew(Chain{Certificates: "x"}); transport.ReasonOf(err) != transport.Closed {
			t.Errorf("shown after the end: %v", err)
		}
	})
}

func TestAChainThatThePeerWouldNotTakeIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), echo)
		for name, c := range map[string]Chain{
			"no certificate":     {Statements: []string{"a"}},
			"over 24 KiB":        {Certificates: strings.Repeat("c", 24<<10)},
			"over 16 KiB stated": {Certificates: "c", Statements: []string{strings.Repeat("s", 16<<10+1)}},
			"nine statements":    {Certificates: "c", Statements: slices.Repeat([]string{"s"}, 9)},
		} {
			if err := p.manager.Renew(c); transport.ReasonOf(err) != transport.Protocol {
				t.Errorf("%s: %v", name, err)
			}
		}
		time.Sleep(time.Second)
		if p.manager.Err() != nil || p.runtime.Err() != nil {
			t.Errorf("the line ended: %v, %v", p.manager.Err(), p.runtime.Err())
		}
	})
}
