package relay

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

func TestEachDirectionSwitchesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.meet(t, "s1")
		manager.frame(t, wire.TypeData, "hello")
		runtime.wantFrame(t, wire.TypeData, "hello")
		runtime.frame(t, wire.TypeData, "hello to you")
		manager.wantFrame(t, wire.TypeData, "hello to you")
		manager.leave(t)
		to := &line{manager.under.Raw()}
		_, err := to.Write([]byte("raw"))
		must(t, err)
		runtime.wantFrame(t, wire.TypeSwitch, "")
		if b := make([]byte, 3); must2(io.ReadFull(runtime.under.Raw(), b)) != nil || string(b) != "raw" {
			t.Errorf("%q behind the switch", b)
		}
		runtime.frame(t, wire.TypeData, "still in the outer TLS")
		manager.wantFrame(t, wire.TypeData, "still in the outer TLS")
		runtime.leave(t)
		manager.wantFrame(t, wire.TypeSwitch, "")
		send(t, &line{runtime.under.Raw()}, []byte("and now not"))
		receive(t, to, []byte("and now not"))
		synctest.Wait()
		if c := r.server.counters; c.paired.Get() != 1 || c.fromManager.Get() != uint64(len("helloraw")) ||
			c.fromRuntime.Get() != uint64(len("hello to youstill in the outer TLSand now not")) {
			t.Errorf("%d sessions, %d and %d bytes", c.paired.Get(), c.fromRuntime.Get(), c.fromManager.Get())
		}
	})
}

func must2(_ int, err error) error { return err }

// What follows a join is left unread until the other end is there.
func TestFramesMayFollowTheJoinAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		manager.frame(t, wire.TypeData, "first flight")
		manager.leave(t)
		_, err := manager.under.Raw().Write([]byte("raw"))
		must(t, err)
		time.Sleep(pairTime - time.Second)
		runtime := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		must(t, answer(runtime))
		must(t, answer(manager))
		runtime.wantFrame(t, wire.TypeData, "first flight")
		runtime.wantFrame(t, wire.TypeSwitch, "")
		b := make([]byte, 3)
		if _, err := io.ReadFull(runtime.under.Raw(), b); err != nil || string(b) != "raw" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// What an end may not do ends its pair, for both and within two seconds. The other one gets nothing that is not the
// session's: what came before, and then the end of its socket.
func TestMisuseEndsThePair(t *testing.T) {
	frames := func(b ...byte) func(*testing.T, *client) {
		return func(t *testing.T, c *client) { _, err := c.Write(b); must(t, err) }
	}
	tests := []struct {
		name string
		do   func(*testing.T, *client)
		want transport.Reason
	}{
		{"data behind the switch", frames(byte(wire.TypeSwitch), 0, 0, 0, byte(wire.TypeData), 0, 0, 1, 'x'), transport.Protocol},
		{"half a header behind the switch", frames(byte(wire.TypeSwitch), 0, 0, 0, byte(wire.TypeData)), transport.Protocol},
		{"switch with a payload", frames(byte(wire.TypeSwitch), 0, 0, 1, 'x'), transport.Protocol},
		{"unknown type", frames(0x99, 0, 0, 0), transport.Protocol},
		{"another type", frames(byte(wire.TypeEcho), 0, 0, 1, 'x'), transport.Protocol},
		{"second join", frames(byte(wire.TypeJoin), 0, 0, 2, '{', '}'), transport.Protocol},
		{"length over the limit", frames(byte(wire.TypeData), 0xff, 0xff, 0xff), transport.Protocol},
		{"endless data", func(t *testing.T, c *client) {
			for wire.Write(c, wire.TypeData, make([]byte, wire.DataBytes)) == nil {
			}
		}, transport.Protocol},
		{"endless frames of nothing", func(t *testing.T, c *client) {
			for wire.Write(c, wire.TypeData, nil) == nil {
			}
		}, transport.Protocol},
		{"bytes that are no TLS", func(t *testing.T, c *client) {
			_, err := c.under.Raw().Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			must(t, err)
		}, ""},
		{"half a frame and the end", func(t *testing.T, c *client) {
			frames(byte(wire.TypeData), 0, 0, 9, 'x')(t, c)
			must(t, c.CloseWrite())
		}, transport.Reset},
	}
	t.Attr("id", "R-relay")
	t.Attr("cases", strconv.Itoa(2*len(tests)))
	for _, c := range tests {
		for _, switched := range []bool{false, true} { // the direction to who does it
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					runtime, manager := r.meet(t, "s1")
					manager.frame(t, wire.TypeData, "before")
					if switched {
						runtime.leave(t)
						manager.wantFrame(t, wire.TypeSwitch, "")
					}
					began := time.Now()
					c.do(t, manager)
					runtime.wantFrame(t, wire.TypeData, "before")
					for { // only whole frames, and no close_notify or alert in their place
						f, err := wire.Read(runtime)
						if err != nil {
							if !errors.Is(err, io.EOF) {
								t.Errorf("the other end: %v, want the end of its socket", err)
							}
							break
						}
						if f.Type != wire.TypeData {
							break // a switch that came before the misuse
						}
					}
					runtime.under.Raw().Close()
					b, _ := io.ReadAll(manager.under.Raw())
					if switched && len(b) > 0 {
						t.Errorf("%q was said to who is behind the gate", b)
					}
					if took := time.Since(began); took > endTime {
						t.Errorf("it ended after %v", took)
					}
					synctest.Wait()
					if log := r.log.String(); !strings.Contains(log, "reason="+string(c.want)) || strings.Count(log, "session over") != 1 {
						t.Errorf("the log:\n%s", log)
					}
				})
			})
		}
	}
}

func TestPairWithoutASwitchIsCutAfterFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.meet(t, "s1")
		began := time.Now()
		for range 14 { // a sign of life is none of progress
			time.Sleep(time.Second)
			manager.frame(t, wire.TypeData, "x")
			runtime.wantFrame(t, wire.TypeData, "x")
		}
		wantEnd(t, runtime)
		wantEnd(t, manager)
		if took := time.Since(began); took != switchTime {
			t.Errorf("cut after %v, want %v", took, switchTime)
		}
		synctest.Wait()
		if log := r.log.String(); !strings.Contains(log, "reason=timeout") {
			t.Errorf("the log:\n%s", log)
		}
	})
}

func TestOtherDirectionHasFifteenSecondsForItsSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.meet(t, "s1")
		time.Sleep(switchTime - time.Second)
		manager.leave(t)
		runtime.wantFrame(t, wire.TypeSwitch, "")
		began := time.Now()
		if b, err := io.ReadAll(runtime.under.Raw()); err != nil || len(b) > 0 {
			t.Errorf("%q, %v, want the end and nothing before it", b, err)
		}
		wantEnd(t, manager)
		if took := time.Since(began); took != switchTime {
			t.Errorf("cut after %v, want %v", took, switchTime)
		}
	})
}

// An end that does not read its frames holds up the other one, for fifteen seconds.
func TestEndThatDoesNotReadFramesIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, manager := r.meet(t, "s1")
		began := time.Now()
		manager.leave(t)
		raw := manager.under.Raw()
		for {
			if _, err := raw.Write(make([]byte, recordBytes)); err != nil {
				break
			}
		}
		if took := time.Since(began); took < switchTime || took > switchTime+endTime {
			t.Errorf("cut after %v", took)
		}
	})
}

// What a relay holds when it is to stop is still written, to who takes it.
func TestStoppedRelayForwardsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		sent := make([]byte, 1<<20)
		rand.Read(sent)
		manager.SetWriteDeadline(time.Now().Add(time.Minute)) // by then nothing moves any more
		n, err := manager.Write(sent)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		r.cancel()
		time.Sleep(endTime / 2)
		got, err := io.ReadAll(runtime)
		// All of it except what waits before the relay, in the buffer of its socket.
		if held := n - 256<<10; err != nil || len(got) < held || string(got) != string(sent[:len(got)]) {
			t.Errorf("%d bytes arrived, %v, want %d at least", len(got), err, held)
		}
		r.wait()
	})
}

func TestVerdict(t *testing.T) {
	reset, revoked := errors.New("reset"), errors.New("revoked")
	far, cut := farError{errors.New("broken pipe")}, os.ErrDeadlineExceeded
	for _, c := range []struct {
		name  string
		cause error
		errs  []error
		want  error
	}{
		{"both closed", nil, []error{nil, nil}, nil},
		{"one closed, the other was cut", nil, []error{nil, cut}, nil},
		{"reset, and the other closed then", nil, []error{reset, nil}, reset},
		{"one closed, and did not read any more", nil, []error{nil, far}, nil},
		{"the write failed before the end was read", nil, []error{far, nil}, nil},
		{"reset", nil, []error{reset, cut}, reset},
		{"reset, noticed by a write first", nil, []error{far, reset}, reset},
		{"a write failed", nil, []error{far, cut}, far},
		{"cut from outside", revoked, []error{cut, cut}, revoked},
	} {
		if got := verdict(c.cause, c.errs); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A switch that comes after the other end has left does not keep the pair.
func TestASwitchAfterTheOtherEndHasLeftGivesNoTime(t *testing.T) {
	for _, switched := range []bool{false, true} { // the one that leaves
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			runtime, manager := r.meet(t, "s1")
			if switched {
				manager.leave(t)
				runtime.wantFrame(t, wire.TypeSwitch, "")
			}
			must(t, (&line{manager.under.Raw()}).CloseWrite())
			time.Sleep(time.Second)
			began := time.Now()
			runtime.leave(t)
			manager.wantFrame(t, wire.TypeSwitch, "")
			io.Copy(io.Discard, manager.under.Raw())
			if took := time.Since(began); took > endTime {
				t.Errorf("it ended after %v", took)
			}
		})
	}
}
