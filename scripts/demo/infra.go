package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	accessHost = "127.0.0.1"
	deviceName = "press-4"
	// startPatience bounds the start of a program: a moment, and more on a machine that does other things. It and the
	// other bounds only end what hangs.
	startPatience = time.Minute
)

func (d *demo) serverConfig() string   { return d.path("server", "server.yaml") }
func (d *demo) technicianHome() string { return d.path("technician") }

// access is what the clients are told of the server.
func (d *demo) access() string {
	return net.JoinHostPort(accessHost, strconv.Itoa(int(d.ports.dialled())))
}

// An empty member would pass the decoder, and fail a later step with a text about something else.
func (d *demo) initServer(ctx context.Context) (string, error) {
	answer, err := d.call(ctx, "hawser-server", "init", "--dir", d.path("server"), "--host", accessHost, "--ports", d.ports.String(), "--json")
	if err == nil {
		err = decode("init", answer, &d.infra)
	}
	if err == nil && (d.infra.RootSHA256 == "" || d.infra.RootFile == "" || d.infra.AdminCode == "") {
		err = errors.New("init gave no root or no login code")
	}
	if err != nil {
		return "", err
	}
	d.out.note("root sha256 " + d.infra.RootSHA256)
	d.out.note("login code  " + d.infra.AdminCode)
	return "One directory holds its own root of trust, keys and configuration.", nil
}

// dropRelay makes room for relays that can be killed alone: the one beside the Access Server would take it along.
func (d *demo) dropRelay(context.Context) (string, error) {
	config, err := os.ReadFile(d.serverConfig())
	if err != nil {
		return "", fmt.Errorf("read the configuration that init wrote: %w", err)
	}
	rest, section := cutSection(string(config), "relay")
	if section == "" {
		return "", fmt.Errorf("no section relay in %s", d.serverConfig())
	}
	d.out.note(d.serverConfig() + " loses the section")
	d.out.notes(section)
	if err := os.WriteFile(d.serverConfig(), []byte(rest), 0o600); err != nil {
		return "", fmt.Errorf("change the configuration: %w", err)
	}
	return "The sections say what a server is. One server can be both; here the relays get processes of their own.", nil
}

// cutSection takes a top-level key of a YAML file away, with what is indented below it. The section is empty when there is
// none.
func cutSection(text, key string) (rest, section string) {
	inside := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			inside = strings.HasPrefix(line, key+":")
		}
		if inside {
			section += line
		} else {
			rest += line
		}
	}
	return rest, section
}

func (d *demo) runServer(ctx context.Context) (string, error) {
	return "It answers on every one of its ports.", d.serve(ctx, d.serverConfig())
}

// serve runs the Access Server of a configuration.
func (d *demo) serve(ctx context.Context, config string) (err error) {
	if d.server, err = d.launch("hawser-server", "hawser-server", "run", "--config", config); err != nil {
		return err
	}
	line, err := d.server.await(ctx, readyPrefix, startPatience)
	if err == nil {
		d.out.note(line)
	}
	return err
}

func (d *demo) stopServer() error {
	d.out.note(fmt.Sprintf("SIGTERM to %s, process %d", d.server.name, d.server.pid()))
	return d.server.stop(endPatience)
}

func (d *demo) login(ctx context.Context) (string, error) {
	answer, err := d.hawser(ctx, "login", d.access(), "--code", d.infra.AdminCode, "--pin", d.infra.RootSHA256, "--private", "--no-passphrase", "--json")
	if err != nil {
		return "", err
	}
	var a account
	if err := decode("login", answer, &a); err != nil {
		return "", err
	}
	d.out.note(fmt.Sprintf("user %s of domain %s, certificate until %s", a.User, a.Domain, a.NotAfter.UTC().Format(time.RFC3339)))
	return "The servers of this demo have loopback addresses, which are dialled because the technician says so (--private). The code was turned into a short-lived certificate, from a server that is known by the hash of its root (--pin) and by nothing else. The domain key was made here, and stays here.", nil
}

func (d *demo) addDevice(ctx context.Context) (string, error) {
	answer, err := d.hawser(ctx, "device", "add", deviceName, "--json")
	if err == nil {
		err = decode("device add", answer, &d.device)
	}
	if err == nil && (d.device.UID == "" || d.device.Code == "") {
		err = errors.New("device add gave no UID or no code")
	}
	if err != nil {
		return "", err
	}
	d.out.note("uid             " + d.device.UID)
	d.out.note("activation code " + d.device.Code)
	return "The device has a UID, and a code that whoever installs the gateway types once. It was made here: no server knows it.", nil
}

// listDevices asks twice: the table is what a person sees, and the JSON is what can be compared.
func (d *demo) listDevices(ctx context.Context) (string, error) {
	table, err := d.hawser(ctx, "device", "list")
	if err != nil {
		return "", err
	}
	d.out.notes(table)
	answer, err := call(ctx, d.program("hawser"), "--home", d.technicianHome(), "device", "list", "--json")
	if err != nil {
		return "", err
	}
	var list []device
	if err := decode("device list", answer, &list); err != nil {
		return "", err
	}
	if len(list) != 1 || list[0].UID != d.device.UID || list[0].State != "enrolled" || !list[0].Online {
		return "", fmt.Errorf("the list is not one device %s, enrolled and online: %s", d.device.UID, strings.TrimSpace(answer))
	}
	return "The Access Server knows who is there.", nil
}

// hawser is call for the technician's program.
func (d *demo) hawser(ctx context.Context, args ...string) (string, error) {
	return d.call(ctx, "hawser", append([]string{"--home", d.technicianHome()}, args...)...)
}
