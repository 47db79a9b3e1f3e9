//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

const verbHelp = `  lab hosts                              names and addresses
  lab exec HOST COMMAND ARG…             run something on a host
  lab link HOST[-NETWORK] up|down        plug a host's cable in, pull it
  lab firewall CLAUSE…                   replace the rules of the site's firewall by these:
      open PORT[,PORT…] [--others drop|reject]    only these TCP ports lead out (and 53)
      drop|reject tcp|udp PORT[,PORT…]            these do not
      divert PORT[,PORT…] HOST[:PORT]             new TCP connections to these are led to a host on the WAN
      loss PERCENT                                that much is lost, each way
      clear                                       everything leads out
`

// verbs are the sub-commands that work within a lab.
func verbs() map[string]func(args []string) error {
	within := func(verb func([]string) error) func([]string) error {
		return func(args []string) error {
			if os.Getenv(dirVariable) != labDir {
				return errors.New("this is for within a lab: start one with make lab, or lab -- COMMAND")
			}
			return verb(args)
		}
	}
	return map[string]func([]string) error{
		"hosts":    within(func([]string) error { return listHosts(os.Stdout) }),
		"exec":     within(execOn),
		"link":     within(setLink),
		"firewall": within(setFirewall),
	}
}

// listHosts prints a line for each host.
func listHosts(w io.Writer) error {
	d, err := readDescription()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(d.Hosts)) {
		fmt.Fprint(table, "  ", name)
		for _, addr := range d.Hosts[name] {
			fmt.Fprint(table, "\t", addr)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// execOn becomes the command on the host. It returns only if that fails. It becomes the command instead of starting it,
// so that signals and the exit code need no hands in between.
func execOn(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: lab exec HOST COMMAND ARG…")
	}
	if err := checkHost(args[0]); err != nil {
		return err
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		return err
	}
	err = syscall.Exec(ip, append([]string{"ip", "netns", "exec"}, args...), os.Environ())
	return fmt.Errorf("run %s: %w", ip, err)
}

// checkHost says which hosts there are if name is none of them.
func checkHost(name string) error {
	d, err := readDescription()
	if _, ok := d.Hosts[name]; err == nil && !ok {
		err = fmt.Errorf("host %q: want one of %s", name, strings.Join(slices.Sorted(maps.Keys(d.Hosts)), " "))
	}
	return err
}

// setLink pulls a cable at the switch, so that the host keeps its addresses and routes and sees what it sees in life: no
// carrier.
func setLink(args []string) error {
	if len(args) != 2 || args[1] != "up" && args[1] != "down" {
		return errors.New("usage: lab link HOST[-NETWORK] up|down")
	}
	name, network, given := strings.Cut(args[0], "-")
	if err := checkHost(name); err != nil {
		return err
	}
	if !given {
		// The first cable of a host is the same in every lab, so the largest one knows it.
		all, _ := find(options{relays: maxRelays, plcs: maxPLCs}.hosts(), name)
		network = all.cables[0].segment.name
	}
	return pipe("", "ip", "link", "set", name+"-"+network, args[1])
}

// setFirewall checks all clauses before it changes anything.
func setFirewall(args []string) error {
	p, err := parsePolicy(args)
	if err != nil {
		return err
	}
	return p.load()
}
