package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// output is written to only while gate is open, and fails while it has an error.
type output struct {
	gate chan struct{} // nil: always open

	mu   sync.Mutex
	err  error
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	if o.gate != nil {
		<-o.gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	return o.text.Write(b)
}

func (o *output) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func TestAnOutputWithoutAReaderHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &output{gate: make(chan struct{})}
		l := newLines("log", to)
		for i := range 2 * waitingLines {
			fmt.Fprintln(l, i)
			synctest.Wait() // the first line is in the writer's hands
		}
		if got, want := l.trouble(), fmt.Sprintf("log: %d lines were lost: nobody reads it", waitingLines-1); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		close(to.gate)
		l.close()
		if got := to.text.String(); !strings.HasPrefix(got, "0\nlog: 255 lines") || strings.Count(got, "lost") != 1 || !strings.HasSuffix(got, fmt.Sprintf("\n%d\n", waitingLines)) {
			t.Errorf("%.200q", got)
		}
	})
}

func TestAnOutputThatHangsDelaysTheEndByASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &output{gate: make(chan struct{})}
		l := newLines("log", to)
		fmt.Fprintln(l, "last words")
		l.close()
		close(to.gate)
	})
}

func TestLostLinesAreToldWhenTheReaderComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &output{}
		l := newLines("log", to)
		say := func(text string) { fmt.Fprintln(l, text); synctest.Wait() }
		say("a")
		to.fail(errors.New("broken pipe"))
		say("b")
		say("c")
		if got := l.trouble(); got != "log: 2 lines were lost: broken pipe" {
			t.Errorf("%q", got)
		}
		to.fail(nil)
		say("d")
		say("e")
		if got := to.text.String(); got != "a\nlog: 2 lines were lost: broken pipe\nd\ne\n" || l.trouble() != "" {
			t.Errorf("%q", got)
		}
		l.close()
	})
}

func TestALineAfterTheEndIsLost(t *testing.T) {
	var to bytes.Buffer
	l := newLines("log", &to)
	l.close()
	if n, err := l.Write([]byte("late\n")); n != 5 || err != nil || to.Len() > 0 {
		t.Errorf("%d, %v, %q", n, err, &to)
	}
}
