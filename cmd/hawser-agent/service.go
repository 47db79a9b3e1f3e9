package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hawser/board/service"
	"hawser/internal/answer"
	"hawser/internal/cli"
)

// serviceCommand passes the flags on, so that the service reads the same files as the commands of its operator.
// Packages bring their own unit and do not use it.
func serviceCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "install the agent as a service of this machine, and control it", Args: cobra.NoArgs,
	}
	// Each verb makes its own Service: flags are read when a command runs, and not when it is made.
	verb := func(name, short string, f func(*service.Service) error) {
		c.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				s, err := service.New(service.Options{Config: p.config, Data: p.data})
				if err != nil {
					return err
				}
				return f(s)
			},
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
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := service.New(service.Options{Config: p.config, Data: p.data})
			if err != nil {
				return err
			}
			state, err := s.Status()
			// An answer and no failure: scripts ask before they install.
			if errors.Is(err, service.ErrNotInstalled) {
				state, err = "not-installed", nil
			}
			if err != nil {
				return err
			}
			if json {
				return answer.JSON(c.OutOrStdout(), struct {
					State service.State `json:"state"`
				}{state})
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), state)
			return err
		},
	}
	cli.JSONFlag(c, &json)
	return c
}
