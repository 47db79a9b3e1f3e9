package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/provision"
)

// Provisioned is what a provisioning file makes of a gateway (docs/image.md §2).
type Provisioned struct {
	Config Config
	Enroll EnrollOptions

	text []byte // of the configuration file to write; nil: there is one
}

// Provision checks a provisioning file against the configuration that is there, which stays as it is. An error is a mistake
// of whoever wrote the file. It uses no network and writes nothing.
func Provision(f provision.File, cfg Config) (p Provisioned, err error) {
	first := FirstContact{Access: f.Access, Code: f.Code}
	for _, port := range f.Ports {
		first.Ports = append(first.Ports, uint(port))
	}
	switch {
	case f.Roots != nil:
		cfg.Roots = f.Roots
	case !f.Pin.IsZero():
		first.Pin = f.Pin.String()
	}
	if f.Code == "" {
		return p, errors.New("code: the file has none")
	}
	if p.Enroll, err = first.Prepare(&cfg); err != nil {
		return p, err
	}
	p.Config = cfg
	if cfg.File != "" {
		if len(f.Agent)+len(f.Time) > 0 {
			err = fmt.Errorf("agent, time: %s is there and stays as it is: put these lines into it", cfg.File)
		}
		return p, err
	}
	return p, p.configure(f)
}

// configure makes the text of agent.yaml, and reads it, as the agent will: the root is there after the enrollment only.
func (p *Provisioned) configure(f provision.File) error {
	b, err := fileFor(p.Config)
	if err != nil {
		return err
	}
	if len(f.Time) > 0 {
		servers, err := yaml.Marshal(struct {
			Time struct {
				Servers []string `yaml:"servers,flow"`
			} `yaml:"time"`
		}{struct {
			Servers []string `yaml:"servers,flow"`
		}{f.Time}})
		if err != nil {
			return err
		}
		b = append(b, servers...)
	}
	for _, line := range f.Agent {
		b = append(b, line+"\n"...)
	}
	c, err := parseConfig(b, "agent.yaml of this file", func(string) (*identity.Roots, error) { return p.Config.Roots, nil })
	if err != nil {
		return err
	}
	c.Data = p.Config.Data
	p.Config, p.text = c, b
	return nil
}

// WriteConfig writes the configuration file of an agent that has just enrolled, unless there is one. One with a proxy's
// password is for its owner alone.
func (p Provisioned) WriteConfig(file string) error {
	if p.text == nil {
		return nil
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if p.Config.Proxy.HasLogin() {
		mode = 0o600
	}
	return durable.WriteFile(file, p.text, mode)
}
