package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// portList is a list of TCP ports as the programs take it: 8080,8443,5935. It is a flag.Value.
type portList []uint16

// String is the list as Set reads it.
func (l portList) String() string {
	texts := make([]string, len(l))
	for i, p := range l {
		texts[i] = strconv.Itoa(int(p))
	}
	return strings.Join(texts, ",")
}

// Set replaces the list.
func (l *portList) Set(s string) error {
	var ports portList
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(field), 10, 16)
		if err != nil || n == 0 || slices.Contains(ports, uint16(n)) {
			return fmt.Errorf("%q: want different numbers from 1 to 65535, with commas between", field)
		}
		ports = append(ports, uint16(n))
	}
	*l = ports
	return nil
}

// dialled is the port that the demo names to the clients; they learn the others from the server.
func (l portList) dialled() uint16 { return l[len(l)/2] }

// free tells which port a server could not have on host, and why.
func (l portList) free(host string) error {
	for _, p := range l {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(p))))
		if err != nil {
			return portError(host, p, err)
		}
		listener.Close()
	}
	return nil
}

func portError(host string, port uint16, err error) error {
	const cure = "choose others: make demo PORTS=18080,18443,15935 (flag -ports)"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d on %s is taken by another program; %s", port, host, cure)
	case errors.Is(err, syscall.EADDRNOTAVAIL) && runtime.GOOS == "darwin":
		return fmt.Errorf("address %s: %w; on macOS: sudo ifconfig lo0 alias %[1]s", host, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %d on %s needs root; %s", port, host, cure)
	}
	return fmt.Errorf("port %d on %s: %w; %s", port, host, err, cure)
}
