package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hawser/agent"
)

// netcheckFlags are what an operator types; the configuration and the state
// directory give the rest.
type netcheckFlags struct {
	first   agent.FirstContact
	profile string
	time    []string
	sheet   string
	json    bool
}

func netcheckCommand(p *places) *cobra.Command {
	var f netcheckFlags
	c := &cobra.Command{
		Use: "netcheck", Short: "test time, names and every way to the Access Servers, and say what to do", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error { return f.run(c, p) }),
	}
	c.Flags().StringArrayVar(&f.first.Access, "access", nil, "`HOST[:PORT]` of an Access Server (default: the configured ones)")
	c.Flags().UintSliceVar(&f.first.Ports, "ports", nil, "`PORTS` to try (default: the configured ones)")
	c.Flags().StringVar(&f.first.RootFile, "root", "", "root certificate `FILE` (default: the configured or stored one)")
	c.Flags().StringVar(&f.profile, "profile", "", "test the ways to another infrastructure, of this `NAME`: combivis; needs no root and no configuration")
	c.Flags().StringArrayVar(&f.time, "time", nil, "`HOST[:PORT]` to ask for the time (default: the Access Servers, then time.servers)")
	c.Flags().StringVar(&f.sheet, "it-report", "", "write the sheet for the site's IT to `FILE`: HTML when it ends in .html, else text")
	c.Flags().BoolVar(&f.json, "json", false, asJSON)
	for _, own := range []string{"access", "ports", "root"} {
		c.MarkFlagsMutuallyExclusive("profile", own)
	}
	return c
}

// run measures, writes the sheet, prints the report, and fails without a way.
func (f *netcheckFlags) run(c *cobra.Command, p *places) error {
	cfg, _, err := p.load(true)
	if err != nil {
		return err
	}
	o := p.options(c, cfg)
	if c.Flags().Changed("profile") {
		err = agent.CheckProfile(f.profile)
	} else {
		err = f.reach(&o.Config)
	}
	if err != nil {
		return usageError{err}
	}
	if f.sheet != "" {
		if err := agent.CheckSheetFile(f.sheet); err != nil {
			return err
		}
	}
	show := newProgress(c.ErrOrStderr())
	measure := func() (agent.NetcheckReport, error) { return agent.Netcheck(c.Context(), o, show.row) }
	if f.profile != "" {
		measure = func() (agent.NetcheckReport, error) {
			return agent.NetcheckProfile(c.Context(), o, f.profile, f.time, show.row)
		}
	}
	report, err := measure()
	show.end()
	if err != nil {
		return usageError{err}
	}
	return f.tell(c.OutOrStdout(), o, report)
}

// reach settles which Access Servers are meant, and who vouches for them.
func (f *netcheckFlags) reach(cfg *agent.Config) error {
	if f.first.RootFile == "" && cfg.Roots == nil { // an agent that enrolled with --pin has it there
		f.first.RootFile = filepath.Join(cfg.Data, "root.pem")
	}
	if len(f.time) > 0 {
		cfg.Time = f.time
	}
	_, err := f.first.Reach(cfg)
	return err
}

// tell prints the report before anything can fail for the sheet's sake.
func (f *netcheckFlags) tell(w io.Writer, o agent.Options, report agent.NetcheckReport) (err error) {
	if f.json {
		err = printJSON(w, report)
	} else {
		err = report.WriteText(w)
	}
	if err == nil && f.sheet != "" {
		err = agent.WriteSheet(f.sheet, o, report)
	}
	if err == nil && !report.Verdict.OK {
		err = noWay{report.Verdict.Text}
	}
	return err
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
