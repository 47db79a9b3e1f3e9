package agent

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"hawser/identity"
	"hawser/transport"
)

const maxConfigBytes = 64 << 10

// Config is a checked configuration. LoadConfig makes one; docs/agent.md says
// what each key means.
type Config struct {
	File    string   // absolute path it was read from; empty: none
	Data    string   // the state directory
	Access  []string // HOST or HOST:PORT
	Ports   []transport.Port
	Roots   *identity.Roots // nil until enrolled when the file names none
	DNS     []netip.AddrPort
	Time    []string
	Allow   []Rule // nil: the default policy; empty: nothing is allowed
	Private bool   // the infrastructure lives on private addresses
	Log     slog.Level

	// SystemClock is auto when the file does not name it. The zero value is never:
	// who makes a Config without a file must ask for a clock to be set.
	SystemClock SystemClock
	Watchdog    string // device file of the hardware's; empty: off
	LEDs        LEDs
	KeySwitch   *KeySwitch // nil: there is none
}

// LoadConfig reads and checks a configuration file. A relative path in it is
// relative to the file. Errors are one line and name the file and, where it is
// one line's fault, the line and the key. A missing file is fs.ErrNotExist.
func LoadConfig(file string) (Config, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return Config{}, err
	}
	b, err := readLimited(file, maxConfigBytes)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := parseConfig(b, filepath.Dir(file))
	if err != nil {
		return Config{}, fmt.Errorf("config %s: %w", file, err)
	}
	c.File = file
	return c, nil
}

// readLimited reads a file that may not be private, but must be small.
func readLimited(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // reading from a pipe could wait for ever
		return nil, fmt.Errorf("%s: not a regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: over %d KiB", file, limit>>10)
	}
	return b, err
}

// LoadRoots reads pinned roots (PEM) from a file of at most 64 KiB.
func LoadRoots(file string) (*identity.Roots, error) {
	b, err := readLimited(file, maxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("read root: %w", err)
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		return nil, fmt.Errorf("read root %s: %w", file, err)
	}
	return roots, nil
}

// FileFor returns the text of a new configuration file, as enroll writes it.
func FileFor(access []string, ports []transport.Port, rootFile string) ([]byte, error) {
	return yaml.Marshal(struct {
		Access []string         `yaml:"access,flow"`
		Ports  []transport.Port `yaml:"ports,flow"`
		Root   string           `yaml:"root"`
	}{access, ports, rootFile})
}
