package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hawser/board/service"
)

func configCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "check the configuration", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("config: say check") },
	}
	var json bool
	check := &cobra.Command{
		Use: "check", Short: "read the configuration and change nothing", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, _, err := p.load(false)
			if err != nil {
				return err
			}
			if json {
				return printJSON(c.OutOrStdout(), struct {
					OK     bool   `json:"ok"`
					Config string `json:"config"`
				}{true, cfg.File})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good\n", cfg.File)
			return err
		}),
	}
	check.Flags().BoolVar(&json, "json", false, asJSON)
	c.AddCommand(check)
	return c
}

func serviceCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "install the agent as a service of this machine, and control it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("service: say install, uninstall, start, stop, restart or status")
		},
	}
	verb := func(name, short string, f func(*service.Service) error) {
		c.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: act(func(*cobra.Command) error {
				s, err := service.New(service.Options{Config: p.config, Data: p.data})
				if err != nil {
					return err
				}
				return f(s)
			}),
		})
	}
	verb("install", "make it start with the machine", (*service.Service).Install)
	verb("uninstall", "stop it and forget it; identity and configuration stay", (*service.Service).Uninstall)
	verb("start", "start it", (*service.Service).Start)
	verb("stop", "stop it", (*service.Service).Stop)
	verb("restart", "stop and start it", (*service.Service).Restart)
	c.AddCommand(serviceStatus(p))
	return c
}

func serviceStatus(p *places) *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use: "status", Short: "ask the service manager", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			s, err := service.New(service.Options{Config: p.config, Data: p.data})
			if err != nil {
				return err
			}
			state, err := s.Status()
			if errors.Is(err, service.ErrNotInstalled) {
				state, err = "not-installed", nil
			}
			if err != nil {
				return err
			}
			if json {
				return printJSON(c.OutOrStdout(), struct {
					State service.State `json:"state"`
				}{state})
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), state)
			return err
		}),
	}
	c.Flags().BoolVar(&json, "json", false, asJSON)
	return c
}
