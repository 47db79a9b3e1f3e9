package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/board/service"
	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/wait"
)

// runCommand reads the environment here and nowhere below: package agent must behave the same under any service
// manager.
func runCommand(p *places) *cobra.Command {
	var console string
	c := &cobra.Command{
		Use: "run", Short: "serve until SIGINT or SIGTERM, or until the service manager says stop", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, paths, err := p.loadToRun()
			if err != nil {
				return err
			}
			// A variable that is damaged ends the start: without the watchdog's time systemd would kill the agent again
			// and again.
			notify, err := board.NewNotifier(os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"))
			if err != nil {
				return err
			}
			// What explains must not kill what connects: a reader of the log that is gone, or does not read, costs lines.
			ignoreBrokenPipes()
			debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), cfg.Limits.Memory)) // GOMEMLIMIT may say less
			out, log := newLines("output", c.OutOrStdout()), newLines("log", c.ErrOrStderr())
			defer out.close()
			defer log.close()
			o := p.options(log, cfg)
			o.Out, o.Socket = out, paths.Socket
			if console != "" {
				f, err := os.OpenFile(console, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					return &answer.UsageError{Err: fmt.Errorf("--console: %w", err)}
				}
				defer f.Close()
				lines := newLines("console", f)
				defer lines.close()
				o.Console = lines
			}
			o.Unsaid = func() []string {
				return slices.DeleteFunc([]string{out.trouble(), log.trouble()}, func(s string) bool { return s == "" })
			}
			return service.Run(c.Context(), func(ctx context.Context) error { return serve(ctx, o, notify) })
		},
	}
	c.Flags().StringVar(&console, "console", "", "`DEVICE`, as /dev/console, that shows with which code this gateway can be claimed while it has no identity")
	return c
}

// serve runs the agent and tells the service manager about it. Ready is said before a server is reached: a machine hall
// without internet must not keep the rest of the boot waiting.
func serve(ctx context.Context, o agent.Options, notify *board.Notifier) error {
	linkUp := wait.NewBell()
	o.LinkUp, o.Service = linkUp, notify
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		o.Log.Warn("service manager cannot be told", "err", err)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { watchLinks(ctx, o, linkUp) })
	// When the agent has ended and not when it begins to: until then systemd should still watch it.
	defer notify.Stopping()
	return a.Run(ctx)
}

// watchLinks tells the agent when a network comes up: the kernel reports it, and
// on OpenWrt the interface trigger sends SIGHUP. A bell holds one ring, so a burst of messages about one cable is one
// attempt. Without the kernel's messages the agent goes on: it only waits for the end of its back-off.
func watchLinks(ctx context.Context, o agent.Options, up wait.Bell) {
	var both sync.WaitGroup
	both.Go(func() { onHangup(ctx, up.Ring) })
	both.Go(func() {
		if err := o.Board.LinkUp(ctx, up.Ring); err != nil {
			o.Log.Warn("links are not watched", "err", err)
		}
	})
	both.Wait()
}

// statusCommand asks the socket and no file: what is on disk says nothing about a process that hangs.
func statusCommand(p *places) *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use: "status", Short: "ask the running agent how it is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, paths, err := p.load(true)
			if err != nil {
				return err
			}
			st, err := agent.ReadStatus(c.Context(), paths.Socket)
			if err != nil {
				return err
			}
			if json {
				return answer.JSON(c.OutOrStdout(), st)
			}
			return printStatus(c.OutOrStdout(), st)
		},
	}
	cli.JSONFlag(c, &json)
	return c
}

// printData says what being reachable costs. MB are a million bytes, as mobile tariffs count.
func printData(w io.Writer, d agent.DataStatus) {
	mb := func(bytes int64) float64 { return float64(bytes) / 1e6 }
	fmt.Fprintf(w, "data      %.2f MB in the last day, about %.1f MB a month, idle pings every %d s", mb(d.DayBytes), mb(d.MonthBytes), d.IntervalS)
	if d.BudgetBytes > 0 {
		fmt.Fprintf(w, ", budget %.0f MB", mb(d.BudgetBytes))
	}
	if d.OverBytes > 0 {
		fmt.Fprintf(w, ": it needs %.1f MB more", mb(d.OverBytes))
	}
	fmt.Fprintln(w)
}

// printCounts says in a line what the agent has done since its start; all of it is in --json.
func printCounts(w io.Writer, c agent.Counts) {
	fmt.Fprintf(w, "counts    online %d times, %d connections (%d failed), %d sessions, %d streams (%d refused), %.1f MB in, %.1f MB out\n",
		c.Online, c.Connections, c.Failures.Sum(), c.Sessions, c.Streams, c.StreamsRefused.Sum(), float64(c.InBytes)/1e6, float64(c.OutBytes)/1e6)
}

// wayText says how the Access Server is reached.
func wayText(a agent.AccessStatus) string {
	text := fmt.Sprintf("%s (%s) port %d, %s", a.Host, a.Addr, a.Port, a.Way)
	if a.Proxy != "" {
		text = fmt.Sprintf("%s port %d, through %s", a.Host, a.Port, a.Proxy)
	}
	if a.Small {
		text += ", in small packets: large ones vanish on the way"
	}
	return text
}

// printStatus leaves out what the gateway does not have: a line without a value would be asked about.
func printStatus(w io.Writer, st agent.Status) error {
	fmt.Fprintf(w, "state     %s since %s\n", st.State, st.Since.Format(time.RFC3339))
	fmt.Fprintf(w, "signal    %s (LED: %s)\n", st.Signal, st.Signal.Light())
	if st.UID != "" {
		fmt.Fprintf(w, "identity  %s in domain %s\n", st.UID, st.Domain)
		fmt.Fprintf(w, "owner     %s\n", ownerText(st.Owner, ""))
	}
	if st.Claim != "" {
		fmt.Fprintf(w, "claim     hawser device claim %s NAME\n", st.Claim)
	}
	if st.Key != "" {
		fmt.Fprintf(w, "key       %s\n", st.Key)
	}
	if a := st.Access; a != nil {
		fmt.Fprintf(w, "access    %s\n", wayText(*a))
	}
	fmt.Fprintf(w, "clock     %s", st.Clock.State)
	if st.Clock.Source != "" {
		fmt.Fprintf(w, " from %s, was off by %d ms", st.Clock.Source, st.Clock.OffsetMS)
	}
	if f := st.Clock.FloorReset; f != nil {
		fmt.Fprintf(w, ", floor reset to %s", f.Format(time.RFC3339))
	}
	fmt.Fprintln(w)
	printData(w, st.Data)
	printCounts(w, st.Counts)
	printReach(w, st.Reach)
	for _, s := range st.Sessions {
		fmt.Fprintf(w, "session   %s by %s via relay %s, %d streams, since %s\n", s.ID, s.User, s.Relay, s.Streams, s.Since.Format(time.RFC3339))
	}
	for _, trouble := range st.Troubles {
		fmt.Fprintf(w, "trouble   %s\n", trouble)
	}
	if st.Error != "" {
		fmt.Fprintf(w, "error     %s\n", st.Error)
	}
	return nil
}

// printReach says what sessions may reach now. The networks explain the default; with rules they decide nothing.
func printReach(w io.Writer, r agent.Reach) {
	if r.Rules != nil {
		if len(r.Limited) == 0 {
			fmt.Fprintf(w, "reach     %s\n", cmp.Or(strings.Join(r.Rules, ", "), "nothing: allow is empty"))
			return
		}
		for _, rule := range r.Rules {
			word, until := "reach", ""
			if i := slices.IndexFunc(r.Limited, func(l agent.LimitedRule) bool { return l.Rule == rule }); i >= 0 {
				if l := r.Limited[i]; !l.Open {
					word = "closed"
				} else if !l.Until.IsZero() {
					until = ", until " + l.Until.Format(time.RFC3339)
				}
			}
			fmt.Fprintf(w, "%-9s %s%s\n", word, rule, until)
		}
		return
	}
	open := false
	for _, n := range r.Networks {
		word := "closed"
		if n.LAN {
			word, open = "reach", true
		}
		fmt.Fprintf(w, "%-9s %s on %s: %s\n", word, n.Network, n.Interface, n.Why)
	}
	if !open {
		fmt.Fprintln(w, "reach     nothing: no network is on the LAN side; name the machines with allow")
	}
}
