//go:build linux

package main

import (
	"context"
	"net"
	"path/filepath"
	"time"
)

// measureARM runs the agent as built for ARMv7 under qemu-user, beside the same agent for this processor. What QEMU
// takes for an instruction of a guest is not what an ARM takes, but it is the same at every round: the figure says
// whether the agent's work for a byte has become more or less where there is no AES in hardware.
func measureARM(ctx context.Context, b *bench) error {
	qemu, err := b.find("qemu-arm-static")
	if err != nil {
		qemu, err = b.find("qemu-arm")
	}
	if err != nil {
		return err
	}
	program, err := b.find(filepath.Join("arm", "hawser-agent"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back := serveBackend(l)
	defer back.close()
	type emulated struct {
		name string
		*tunnel
	}
	var up []emulated
	for _, name := range []string{"agent amd64", "agent ARMv7 in QEMU"} {
		s, err := b.newStage(name, back.addr(), nil)
		if err != nil {
			return err
		}
		defer s.stop()
		in, err := s.newInfra(ctx)
		if err == nil {
			err = in.login(ctx)
		}
		if err != nil {
			return err
		}
		g, err := in.addGateway(ctx, "bench")
		if err != nil {
			return err
		}
		if len(up) > 0 {
			g.program, g.before = qemu, append([]string{program}, g.before...)
		}
		if err := g.run(ctx); err != nil {
			return err
		}
		t, err := g.tunnel(ctx)
		if err != nil {
			return err
		}
		up = append(up, emulated{name, t})
	}
	for round := 1; round <= b.rounds && ctx.Err() == nil; round++ {
		for _, e := range up {
			for _, f := range []flow{{1, false}, {1, true}} {
				m, err := e.carry(f, time.Second, b.time)
				if err != nil {
					return err
				}
				b.result.add(e.name, f.String()+" agent CPU s/GiB", round, m.agent.cpu.Seconds()/m.gib())
			}
		}
	}
	b.say("arm: done")
	return nil
}
