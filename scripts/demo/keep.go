package main

import (
	"context"
	"fmt"
)

// printUsage says how to use what KEEP=1 leaves running.
func (d *demo) printUsage() {
	d.out.text(fmt.Sprintf(`
It keeps running until ^C. To copy into another terminal, the first line first:

  D=%[1]s PATH=%[2]s:$PATH

the technician
  hawser --home $D/technician device list
  hawser --home $D/technician ping %[3]s
  hawser --home $D/technician connect %[3]s -L 0:%[4]s
  hawser --home $D/technician audit
the gateway
  hawser-agent --config $D/gateway/agent.yaml --data $D/gateway/data status
  hawser-agent --config $D/gateway/agent.yaml --data $D/gateway/data netcheck
the server
  hawser-server check --config $D/server/server.yaml
what they log
  tail -f $D/*.log

The PLC is at %[5]s while this runs: Modbus/TCP, any unit;
input registers 0-3 (0.1 °C, 0.1 bar, parts made in two), holding register 0
(set point in 0.1 °C).
`, d.dir, d.bin, deviceName, d.plc.addr, d.forwards[0].local))
}

// waitForEnd returns nil on ^C, and an error when a program ends by itself.
func (d *demo) waitForEnd(ctx context.Context) error {
	server, agent, session := d.running[0], d.running[1], d.running[2]
	select {
	case <-ctx.Done():
		d.out.text("")
		return nil
	case <-server.done:
		return server.endedEarly()
	case <-agent.done:
		return agent.endedEarly()
	case <-session.done:
		return session.endedEarly()
	}
}
