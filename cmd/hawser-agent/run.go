package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/board/service"
)

func runCommand(p *places) *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "serve until SIGINT or SIGTERM, or until the service manager says stop", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, paths, err := p.load(false)
			if err != nil {
				return err
			}
			if len(cfg.Access) == 0 {
				return usageError{fmt.Errorf("config %s: no Access Server is named: add access: [HOST]", cfg.File)}
			}
			notify, err := board.NewNotifier(os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"))
			if err != nil {
				return err
			}
			o := p.options(c, cfg)
			o.Out, o.Socket = c.OutOrStdout(), paths.Socket
			return service.Run(c.Context(), func(ctx context.Context) error { return serve(ctx, o, notify) })
		}),
	}
}

// serve runs the agent and tells the service manager about it.
func serve(ctx context.Context, o agent.Options, notify *board.Notifier) error {
	linkUp := make(chan struct{})
	o.LinkUp, o.Service = linkUp, notify
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { watchLinks(ctx, o, linkUp) })
	defer notify.Stopping()
	return a.Run(ctx)
}

// watchLinks tells the agent when a network comes up: the kernel says so, and
// on OpenWrt the interface trigger, by SIGHUP.
func watchLinks(ctx context.Context, o agent.Options, up chan<- struct{}) {
	tell := func() {
		select {
		case up <- struct{}{}:
		default: // nothing waits for it
		}
	}
	var both sync.WaitGroup
	both.Go(func() { onHangup(ctx, tell) })
	both.Go(func() {
		if err := o.Board.LinkUp(ctx, tell); err != nil {
			o.Log.Warn("links are not watched", "err", err)
		}
	})
	both.Wait()
}

func statusCommand(p *places) *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use: "status", Short: "ask the running agent how it is", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			_, paths, err := p.load(true)
			if err != nil {
				return err
			}
			st, err := agent.ReadStatus(c.Context(), paths.Socket)
			if err != nil {
				return err
			}
			if json {
				return printJSON(c.OutOrStdout(), st)
			}
			return printStatus(c.OutOrStdout(), st)
		}),
	}
	c.Flags().BoolVar(&json, "json", false, asJSON)
	return c
}

func printStatus(w io.Writer, st agent.Status) error {
	fmt.Fprintf(w, "state     %s since %s\n", st.State, st.Since.Format(time.RFC3339))
	fmt.Fprintf(w, "signal    %s (LED: %s)\n", st.Signal, st.Signal.Light())
	if st.UID != "" {
		fmt.Fprintf(w, "identity  %s in domain %s\n", st.UID, st.Domain)
	}
	if st.Key != "" {
		fmt.Fprintf(w, "key       %s\n", st.Key)
	}
	if a := st.Access; a != nil {
		fmt.Fprintf(w, "access    %s (%s) port %d, %s\n", a.Host, a.Addr, a.Port, a.Way)
	}
	fmt.Fprintf(w, "clock     %s", st.Clock.State)
	if st.Clock.Source != "" {
		fmt.Fprintf(w, " from %s, was off by %d ms", st.Clock.Source, st.Clock.OffsetMS)
	}
	if f := st.Clock.FloorReset; f != nil {
		fmt.Fprintf(w, ", floor reset to %s", f.Format(time.RFC3339))
	}
	fmt.Fprintln(w)
	for _, s := range st.Sessions {
		fmt.Fprintf(w, "session   %s by %s via relay %s, %d streams, since %s\n", s.ID, s.User, s.Relay, s.Streams, s.Since.Format(time.RFC3339))
	}
	if st.Error != "" {
		fmt.Fprintf(w, "error     %s\n", st.Error)
	}
	return nil
}
