package main

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/board/service"
	"hawser/internal/answer"
	"hawser/probe/netcheck"
)

// places are the global flags, and the paths that they give.
type places struct{ config, data string }

func (p *places) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&p.config, "config", "", "configuration `FILE` (default agent.yaml in --data when that is given, else "+board.New().DefaultPaths().Config+")")
	c.PersistentFlags().StringVar(&p.data, "data", "", "state `DIR` (default "+board.New().DefaultPaths().State+")")
}

// paths says where everything is. --data overrides the state directory of cfg. It is asked twice: without a
// configuration to find that file, and again with what the file says of the state directory.
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
		// Who tries an agent out in a directory of his own has all of it there.
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

// load reads the configuration. Its errors are usage errors; a missing file is
// one only without missingOK. Commands that also work before enrollment pass missingOK.
func (p *places) load(missingOK bool) (agent.Config, board.Paths, error) {
	return p.loadBy(agent.LoadConfig, missingOK)
}

// loadToRun is load for run, and for config check, which says what run would.
func (p *places) loadToRun() (agent.Config, board.Paths, error) {
	cfg, paths, err := p.load(false)
	// Exit code 2, after which systemd does not start it again: a wrong configuration is still wrong in five seconds.
	if err == nil && len(cfg.Access) == 0 {
		err = answer.Usage("config %s: no Access Server is named: add access: [HOST]", cfg.File)
	}
	return cfg, paths, err
}

// known is what netcheck finds here. A configuration that this user may not read is as good as none.
func (p *places) known(c *cobra.Command) (netcheck.Known, error) {
	cfg, _, err := p.loadBy(func(file string) (agent.Config, error) {
		cfg, err := agent.LoadOpenConfig(file)
		if errors.Is(err, fs.ErrPermission) {
			return agent.DefaultConfig(), nil
		}
		return cfg, err
	}, true)
	return agent.Known(p.options(c.ErrOrStderr(), cfg)), err
}

func (p *places) loadBy(read func(string) (agent.Config, error), missingOK bool) (agent.Config, board.Paths, error) {
	paths, err := p.paths(agent.Config{})
	if err != nil {
		return agent.Config{}, paths, err
	}
	cfg, err := read(paths.Config)
	if errors.Is(err, fs.ErrNotExist) {
		if !missingOK {
			return cfg, paths, answer.Usage("%w: hawser-agent enroll writes one", err)
		}
		cfg, err = agent.DefaultConfig(), nil
	}
	if err != nil {
		return cfg, paths, &answer.UsageError{Err: err}
	}
	if paths, err = p.paths(cfg); err != nil {
		return cfg, paths, err
	}
	// From here on there is one answer to where the state is, and package agent has no default.
	cfg.Data = paths.State
	return cfg, paths, nil
}

// options are the agent's options for every command that uses the network.
func (p *places) options(log io.Writer, cfg agent.Config) agent.Options {
	v := thisVersion()
	return agent.Options{
		Config: cfg, Board: board.New(), Version: v.Version, Build: v.BuildTime(),
		Log: slog.New(service.Log(log, cfg.Log)),
	}
}
