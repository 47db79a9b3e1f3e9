// Package provision reads and writes the file that tells a gateway who it is (docs/image.md §2): what an operator hands to
// whoever commissions it. One format serves them all; the image of a board reads the same file by a script of its own.
package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
)

// Limits of a file.
const (
	// The bound keeps a wrong file, such as an image of a disk, out of memory.
	maxBytes = 64 << 10
	maxItems = 64 // values of one key, as in server.yaml
)

// File is what one says. Only Access is always there. Not YAML: a shell script on the board has to read it too, before
// any program of ours runs (docs/image.md §2).
type File struct {
	Access []string // HOST or HOST:PORT
	Relays []string // likewise
	Ports  []transport.Port
	Code   string          // of the owner (identity §13); not parsed: whoever does not enroll has no use for it
	Pin    identity.SPKI   // of the root; zero: none
	Roots  *identity.Roots // nil: none
	Name   string          // what the operator calls the gateway
	LAN    netip.Prefix    // the board's address on the machine LAN
	Time   []string        // HOST or HOST:PORT
	Agent  []string        // lines of agent.yaml
}

// An Error says on which line of a file which key is wrong. Line counts from 1, as editors do.
type Error struct {
	Line int
	Key  string // empty: of no key
	Err  error
}

// Error is LINE: KEY: what is wrong.
func (e *Error) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%d: %v", e.Line, e.Err)
	}
	return fmt.Sprintf("%d: %s: %v", e.Line, e.Key, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Load reads a file. An error is one line that names it. The error begins with FILE:LINE, which editors open.
func Load(path string) (File, error) {
	b, err := durable.ReadPublic(path, maxBytes)
	if err != nil {
		return File{}, fmt.Errorf("read provisioning file: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return File{}, fmt.Errorf("%s:%w", path, err)
	}
	return f, nil
}

const (
	pemBegin = "-----BEGIN CERTIFICATE-----"
	pemEnd   = "-----END CERTIFICATE-----"
)

// Parse reads the bytes of a file. The error is an *Error. It touches no disk and no network, and keeps nothing of b.
func Parse(b []byte) (File, error) {
	p := parser{seen: map[string]bool{}}
	if len(b) > maxBytes {
		return File{}, &Error{1, "", fmt.Errorf("over %d KiB", maxBytes>>10)}
	}
	if !utf8.Valid(b) {
		return File{}, &Error{1, "", errors.New("not UTF-8: save it as plain text")}
	}
	// Operators write the file on Windows: the mark and the CR at the end of each line are dropped.
	text := strings.TrimPrefix(string(b), "\ufeff") // Notepad's mark
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(strings.TrimRight(line, " \t\r")); err != nil {
			err.Line = i + 1
			return File{}, err
		}
	}
	if err := p.end(); err != nil {
		err.Line = 1 + strings.Count(strings.TrimRight(text, "\n"), "\n")
		return File{}, err
	}
	return p.file, nil
}

// parser is a file that is being read.
type parser struct {
	file  File
	seen  map[string]bool
	pem   bytes.Buffer
	inPEM bool
}

// line takes one line, without its end. A key that nobody here knows is for another reader. So an older program reads a
// newer file.
func (p *parser) line(line string) *Error {
	switch {
	case line == pemBegin || p.inPEM:
		p.inPEM = line != pemEnd
		p.pem.WriteString(line + "\n")
		return nil
	case line == "" || line[0] == '#':
		return nil
	}
	key, value := line, ""
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		key, value = line[:i], strings.TrimLeft(line[i:], " \t")
	}
	if !slices.Contains(keys(), key) {
		return nil
	}
	if err := p.set(key, value); err != nil {
		return &Error{Key: key, Err: err}
	}
	return nil
}

// keys are those of docs/image.md §2. Each is in the script of the board as well; a test reads one file with both.
func keys() []string {
	return []string{"access", "code", "pin", "ports", "relay", "name", "lan", "time", "agent"}
}

// set takes one value. A key that can be there once is refused when it is there twice: which of two codes counts would
// be chance, and the two readers could differ.
func (p *parser) set(key, value string) (err error) {
	f := &p.file
	// Everywhere else a blank is likelier two values on one line than part of one.
	spaces := key == "name" || key == "agent" || key == "pin" // a pin may have been pasted with spaces
	once := slices.Contains([]string{"code", "pin", "name", "lan"}, key)
	switch {
	case value == "":
		return errors.New("no value")
	case !spaces && strings.ContainsAny(value, " \t"):
		return fmt.Errorf("%.100q: one value without spaces, please", value)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return errors.New("a control character is in it")
	case once && p.seen[key]:
		return errors.New("it is there twice")
	}
	p.seen[key] = true
	switch key {
	case "access":
		err = host(&f.Access, value)
	case "relay":
		err = host(&f.Relays, value)
	case "time":
		err = host(&f.Time, value)
	case "ports":
		err = port(&f.Ports, value)
	case "code":
		f.Code = value
	case "pin":
		f.Pin, err = identity.ParsePin(value)
	case "name":
		f.Name, err = value, identity.CheckDisplayName(value)
	case "lan":
		f.LAN, err = netip.ParsePrefix(value)
	case "agent":
		f.Agent, err = add(f.Agent, value)
	}
	return err
}

// host reads by ParseHost, like every command line: https:// and a slash behind it come with what people paste.
func host(list *[]string, value string) error {
	h, err := transport.ParseHost(value)
	if err == nil {
		*list, err = add(*list, h)
	}
	return err
}

func port(list *[]transport.Port, value string) error {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%.64q: want a port, 1 to 65535", value)
	}
	*list, err = add(*list, transport.Port(n))
	return err
}

func add[T any](list []T, v T) ([]T, error) {
	if len(list) == maxItems {
		return nil, fmt.Errorf("more than %d", maxItems)
	}
	return append(list, v), nil
}

// end checks what is known when all lines are read. What is missing is told of the last line, since there is no line
// that it stands on.
func (p *parser) end() *Error {
	f := &p.file
	var err error
	switch {
	case p.inPEM:
		err = errors.New("the certificate has no end")
	case p.pem.Len() > 0:
		f.Roots, err = identity.ParseRoots(p.pem.Bytes())
	}
	if err != nil {
		return &Error{Key: "root", Err: err}
	}
	if len(f.Access) == 0 {
		return &Error{Key: "access", Err: errors.New("no Access Server is named")}
	}
	// A file of two infrastructures, pasted together, is found at the desk and not at the machine.
	if f.Roots != nil && !f.Pin.IsZero() {
		if !slices.ContainsFunc(f.Roots.Certificates(), f.pinned) {
			return &Error{Key: "pin", Err: errors.New("it is not that of the certificate in the file")}
		}
	}
	return nil
}

// LoadSecret is Load for whoever uses the code: nobody else may read or write the file. "-" is standard input.
func LoadSecret(path string, stdin io.Reader) (File, error) {
	b, err := []byte(nil), error(nil)
	if path == "-" {
		b, err = io.ReadAll(io.LimitReader(stdin, maxBytes+1))
	} else {
		b, err = durable.ReadPrivate(path, maxBytes)
	}
	if err != nil {
		return File{}, fmt.Errorf("read provisioning file: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return File{}, fmt.Errorf("%s:%w", path, err)
	}
	return f, nil
}
