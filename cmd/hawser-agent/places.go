package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/board/service"
)

// places are the global flags, and what follows from them.
type places struct{ config, data string }

func (p *places) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&p.config, "config", "", "configuration `FILE` (default agent.yaml in --data when that is given, else "+board.New().DefaultPaths().Config+")")
	c.PersistentFlags().StringVar(&p.data, "data", "", "state `DIR` (default "+board.New().DefaultPaths().State+")")
}

// paths settles where everything is; cfg may name the state directory, --data
// is stronger.
func (p *places) paths(cfg agent.Config) (board.Paths, error) {
	paths := board.New().DefaultPaths()
	data := p.data
	if data == "" {
		data = cfg.Data
	}
	if data != "" && data != paths.State {
		dir, err := filepath.Abs(data)
		if err != nil {
			return paths, err
		}
		paths = paths.WithState(dir)
		if p.data != "" {
			paths.Config = filepath.Join(dir, "agent.yaml")
		}
	}
	if p.config != "" {
		file, err := filepath.Abs(p.config)
		if err != nil {
			return paths, err
		}
		paths.Config = file
	}
	return paths, nil
}

// load reads the configuration; a missing file is an error unless missing is
// fine to the caller. Its errors are config errors.
func (p *places) load(missingOK bool) (agent.Config, board.Paths, error) {
	paths, err := p.paths(agent.Config{})
	if err != nil {
		return agent.Config{}, paths, err
	}
	cfg, err := agent.LoadConfig(paths.Config)
	if errors.Is(err, fs.ErrNotExist) {
		if !missingOK {
			return cfg, paths, usageError{errors.Join(err, errors.New("hawser-agent enroll writes one"))}
		}
		cfg, err = agent.Config{}, nil
	}
	if err != nil {
		return cfg, paths, usageError{err}
	}
	if paths, err = p.paths(cfg); err != nil {
		return cfg, paths, err
	}
	cfg.Data = paths.State
	return cfg, paths, nil
}

// options are what every command that reaches the network gives the agent.
func (p *places) options(c *cobra.Command, cfg agent.Config) agent.Options {
	v := thisVersion()
	return agent.Options{
		Config: cfg, Board: board.New(), Version: v.Version, Build: agent.BuildTime(v.Built),
		Log: slog.New(service.Log(c.ErrOrStderr(), cfg.Log)),
	}
}
