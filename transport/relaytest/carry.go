package relaytest

import (
	"encoding/binary"
	"io"
	"sync"
	"time"

	"hawser/transport/wire"
)

// endTime is how long one direction may go on when the other has ended (session §2.2).
const endTime = 2 * time.Second

// A Way is one direction of a pair.
type Way struct {
	Grant     string // that both ends have shown
	ToRuntime bool
}

// A Kind is what a Piece travels as.
type Kind int

// The kinds of a Piece.
const (
	Data   Kind = iota // a data frame in the outer TLS, with B as its payload
	Switch             // the switch; what is in B follows it in its outer record
	Raw                // bytes on TCP: from an end, one whole record of what it writes after its switch
	End                // the end of the line for the receiver
)

// A Piece is what travels in one direction. A Data after the Switch is written to the outer TLS, where nothing may
// follow any more, and a Raw before it to TCP, where the outer TLS is still expected.
type Piece struct {
	Kind Kind
	B    []byte
}

// carryBoth returns when both directions are over.
func (r *Relay) carryBoth(grant string, runtime, manager *end) {
	var both sync.WaitGroup
	over := make(chan struct{}, 2)
	for _, toRuntime := range []bool{true, false} {
		both.Go(func() {
			from, to := runtime, manager
			if toRuntime {
				from, to = to, from
			}
			r.carry(Way{grant, toRuntime}, from, to)
			to.under.CloseWrite() // the other direction may still carry why
			over <- struct{}{}
		})
	}
	<-over
	select {
	case <-over:
	case <-time.After(endTime):
	}
	runtime.under.Close()
	manager.under.Close()
	both.Wait()
}

// carry moves the pieces of one direction: frames up to the switch, and then what is on TCP.
func (r *Relay) carry(w Way, from, to *end) {
	for {
		f, err := wire.Read(from)
		if err != nil || f.Type != wire.TypeData && f.Type != wire.TypeSwitch {
			return
		}
		kind := Data
		if f.Type == wire.TypeSwitch {
			kind = Switch
		}
		if !r.send(w, to, Piece{kind, f.Payload}) {
			return
		}
		if kind == Switch {
			break
		}
	}
	read := readSome
	if r.Carry != nil {
		read = readRecord
	}
	for {
		b, err := read(from.under.Raw())
		if len(b) > 0 && !r.send(w, to, Piece{Raw, b}) || err != nil {
			return
		}
	}
}

// send writes what is to become of a Piece, and reports whether more can follow.
func (r *Relay) send(w Way, to *end, p Piece) bool {
	r.mu.Lock()
	r.carried += len(p.B)
	r.mu.Unlock()
	if p.Kind != Switch && r.Tamper != nil {
		if p.B = r.Tamper(w.ToRuntime, p.B); len(p.B) == 0 {
			return true
		}
	}
	pieces := []Piece{p}
	if r.Carry != nil {
		pieces = r.Carry(w, p)
	}
	for _, p := range pieces {
		if p.Kind == End || r.write(to, p) != nil {
			return false
		}
	}
	return true
}

func (r *Relay) write(to *end, p Piece) error {
	switch p.Kind {
	case Data:
		return wire.Write(to, wire.TypeData, p.B)
	case Switch:
		_, err := to.Write(append([]byte{byte(wire.TypeSwitch), 0, 0, 0}, p.B...))
		if r.Carry == nil { // who does evil may want to go on in the outer TLS
			to.under.Shut()
		}
		return err
	default:
		_, err := to.under.Raw().Write(p.B)
		return err
	}
}

func readSome(c io.Reader) ([]byte, error) {
	b := make([]byte, 8<<10)
	n, err := c.Read(b)
	return b[:n], err
}

// readRecord reads a record of TLS, or what there is of it at the end.
func readRecord(c io.Reader) ([]byte, error) {
	b := make([]byte, 5, 5+16<<10)
	if n, err := io.ReadFull(c, b); err != nil {
		return b[:n], err
	}
	b = append(b, make([]byte, binary.BigEndian.Uint16(b[3:]))...)
	n, err := io.ReadFull(c, b[5:])
	return b[:5+n], err
}
