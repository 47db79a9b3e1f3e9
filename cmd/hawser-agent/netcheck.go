package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hawser/agent"
)

func netcheckCommand(p *places) *cobra.Command {
	var access []string
	var ports []uint
	var root string
	var json bool
	c := &cobra.Command{
		Use: "netcheck", Short: "test time, names and every way to the Access Servers, and say what to do", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, _, err := p.load(true)
			if err != nil {
				return err
			}
			if root == "" && cfg.Roots == nil { // an agent that enrolled with --pin has it there
				root = filepath.Join(cfg.Data, "root.pem")
			}
			o := p.options(c, cfg)
			if _, err := (agent.FirstContact{Access: access, Ports: ports, RootFile: root}).Reach(&o.Config); err != nil {
				return usageError{err}
			}
			show := newProgress(c.ErrOrStderr())
			report, err := agent.Netcheck(c.Context(), o, show.row)
			show.end()
			if err != nil {
				return usageError{err}
			}
			if json {
				err = printJSON(c.OutOrStdout(), report)
			} else {
				err = report.WriteText(c.OutOrStdout())
			}
			if err == nil && !report.Verdict.OK {
				err = noWay{report.Verdict.Text}
			}
			return err
		}),
	}
	c.Flags().StringArrayVar(&access, "access", nil, "`HOST[:PORT]` of an Access Server (default: the configured ones)")
	c.Flags().UintSliceVar(&ports, "ports", nil, "`PORTS` to try (default: the configured ones)")
	c.Flags().StringVar(&root, "root", "", "root certificate `FILE` (default: the configured or stored one)")
	c.Flags().BoolVar(&json, "json", false, asJSON)
	return c
}

// noWay ends a netcheck that found no open way, with exit code 5.
type noWay struct{ text string }

func (e noWay) Error() string { return "netcheck: " + e.text }

// progress shows on a terminal what netcheck has just found; the report, which
// repeats it in order, takes its place. Elsewhere there is only the report.
type progress struct{ w io.Writer }

func newProgress(w io.Writer) progress {
	f, ok := w.(*os.File)
	if ok {
		info, err := f.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !ok {
		w = io.Discard
	}
	return progress{w}
}

const clearLine = "\r\x1b[K"

func (p progress) row(row fmt.Stringer) { fmt.Fprintf(p.w, "%s%.78s", clearLine, row) }
func (p progress) end()                 { fmt.Fprint(p.w, clearLine) }
