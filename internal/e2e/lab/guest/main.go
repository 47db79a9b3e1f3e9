//go:build linux

// Command guest is what a device test runs on the emulated board, in a variant of the image: it answers commands on a
// serial line, makes the board's network bad, and records and replays what is written to a disk. The image that is
// flashed has none of it.
//
//	guest serve                                   runs the commands that come on standard input
//	guest netem DEV DELAY LOSS                    what leaves by DEV is late, and LOSS percent of it is lost
//	guest record NAME DISK LOG                    makes /dev/mapper/NAME: DISK, with all writes noted in LOG
//	guest mark NAME TEXT                          puts TEXT between the notes
//	guest unrecord NAME                           ends that
//	guest replay DISK BASE LOG DIR PROGRAM…       PROGRAM on what is below DIR for each state that DISK had
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	verbs := map[string]func(args []string) error{
		"serve": serve, "netem": netem, "record": record, "mark": mark, "unrecord": unrecord, "replay": replay,
	}
	verb, ok := verbs[append(os.Args, "")[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "guest: no such command")
		os.Exit(2)
	}
	if err := verb(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// call is a command and, on the way back, what came of it. Both are one line of JSON. The ID tells an answer from one
// of before a reset: a board that is cut off in the middle may still have some of it on the line.
type call struct {
	ID      int
	Command string `json:",omitempty"`
	Output  string `json:",omitempty"`
	Code    int
}

// serve runs one command after the other in a shell. It begins with an answer to nothing: the board is up.
func serve([]string) error {
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(call{ID: -1}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var c call
		if json.Unmarshal(in.Bytes(), &c) != nil {
			continue // noise of a board that starts
		}
		cmd := exec.Command("/bin/sh", "-c", c.Command)
		output, err := cmd.CombinedOutput()
		c = call{ID: c.ID, Output: string(output)}
		if err != nil {
			c.Code = max(1, cmd.ProcessState.ExitCode())
		}
		if err := out.Encode(c); err != nil {
			return err
		}
	}
	return in.Err()
}
