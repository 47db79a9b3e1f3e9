package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

func (d *demo) agentConfig() string { return d.path("gateway", "agent.yaml") }
func (d *demo) agentData() string   { return d.path("gateway", "data") }

func (d *demo) enroll(ctx context.Context) (string, error) {
	answer, err := d.call(ctx, "hawser-agent", "enroll", "--access", d.access(), "--code", d.device.Code, "--root", d.infra.RootFile,
		"--private", "--data", d.agentData(), "--config", d.agentConfig(), "--json")
	if err != nil {
		return "", err
	}
	var e enrolled
	if err := decode("enroll", answer, &e); err != nil {
		return "", err
	}
	if e.UID != d.device.UID {
		return "", fmt.Errorf("the gateway became %s, and the technician added %s", e.UID, d.device.UID)
	}
	d.out.note(fmt.Sprintf("uid %s, certificate until %s", e.UID, e.NotAfter.UTC().Format(time.RFC3339)))
	return "The gateway has a signed identity, under the UID that the technician was told. It is told as well that its servers have loopback addresses (--private): else a relay that was stolen could send it to the machines beside it.", nil
}

// writePolicy adds the owner's line to the configuration that enroll wrote.
func (d *demo) writePolicy(context.Context) (string, error) {
	line := fmt.Sprintf("allow: [%s/32:%d]", d.plc.addr.Addr(), d.plc.addr.Port())
	f, err := os.OpenFile(d.agentConfig(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", fmt.Errorf("open the configuration that enroll wrote: %w", err)
	}
	// The machine that shows the demo keeps its own clock, also when it runs as root.
	_, err = fmt.Fprintf(f, "%s\ntime: {set_system_clock: never}\n", line)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	d.out.note(d.agentConfig() + " gets the line  " + line)
	return "This PLC stands on a loopback address, and that no session may reach without the owner's permission.", err
}

func (d *demo) runAgent(ctx context.Context) (string, error) {
	var err error
	if d.agent, err = d.launch("hawser-agent", "hawser-agent", "run", "--config", d.agentConfig(), "--data", d.agentData()); err != nil {
		return "", err
	}
	line, err := d.agent.await(ctx, onlinePrefix, startPatience)
	if err != nil {
		return "", err
	}
	d.out.note(line)
	uid, via, err := parseOnline(line)
	if err == nil && uid != d.device.UID {
		err = fmt.Errorf("%s came online, want %s", uid, d.device.UID)
	}
	return fmt.Sprintf("It found its way out by itself, to %s, and stays connected there.", via), err
}

// lookForPorts first looks at the server, which has to have them: a look that finds none anywhere proves nothing.
func (d *demo) lookForPorts(context.Context) (string, error) {
	if runtime.GOOS != "linux" {
		return "Not looked at: that needs /proc of Linux.", nil
	}
	server, err := socketsOf(d.server.pid())
	if err != nil {
		return "", err
	}
	agent, err := socketsOf(d.agent.pid())
	if err != nil {
		return "", err
	}
	d.out.fact("hawser-server " + server.String())
	d.out.fact("hawser-agent " + agent.String())
	if len(server.listening) == 0 {
		return "", errors.New("the same look at the server found no listening socket either, so it proves nothing")
	}
	if len(agent.listening) > 0 {
		return "", fmt.Errorf("the gateway listens on %v", agent.listening)
	}
	return "Nothing can connect to the gateway over a network: of its sockets in /proc/net none listens, TCP or UDP. The same look at the server finds its ports.", nil
}
