package main

import (
	"context"
	"fmt"
)

// printUsage says how to use what KEEP=1 leaves running. The directory is a variable of the shell, so that the lines
// are short and can be copied as they are.
func (d *demo) printUsage() {
	d.out.text(fmt.Sprintf(`
It keeps running until ^C. To copy into another terminal, the first line first:

  D=%[1]s PATH=%[2]s:$PATH

the technician
  hawser --home $D/technician device list
  hawser --home $D/technician ping %[3]s
  hawser --home $D/technician connect %[3]s -L 0:%[4]s
  hawser --home $D/technician relays %[3]s
  hawser --home $D/technician audit
the gateway
  hawser-agent --config $D/gateway/agent.yaml --data $D/gateway/data status
  hawser-agent --config $D/gateway/agent.yaml --data $D/gateway/data netcheck
the server
  hawser-server check --config $D/server/server.yaml
to lose a relay
%[6]sto have it again, until ^C there; end it before the demo
  hawser-server run --config $D/%[7]s/server.yaml
what they log, and what becomes of the demo's own session (hawser.log)
  tail -f $D/*.log

The PLC is at %[5]s while this runs: Modbus/TCP, any unit;
input registers 0-3 (0.1 °C, 0.1 bar, parts made in two), holding register 0
(set point in 0.1 °C).
`, d.dir, d.bin, deviceName, d.plc.addr, d.forwards[0].local, d.killUsage(), d.via))
}

// killUsage says how to take away each relay, the one in use first.
func (d *demo) killUsage() string {
	text := ""
	for _, r := range d.relays {
		line := fmt.Sprintf("  kill -9 %d  # %s", r.program.pid(), r.name)
		if r.name == d.via {
			text = line + ", which carries the session\n" + text
		} else {
			text += line + "\n"
		}
	}
	return text
}

// waitForEnd returns nil on ^C, and an error when a program ends by itself that is no relay: those may be killed.
func (d *demo) waitForEnd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		d.out.text("")
		return nil
	case <-d.server.done:
		return d.server.endedEarly()
	case <-d.agent.done:
		return d.agent.endedEarly()
	case <-d.session.done:
		return d.session.endedEarly()
	}
}
