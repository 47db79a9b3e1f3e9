// Package netcheckcmd is the command netcheck of hawser-agent and hawser (cli §2): its flags, the rows that show up while it
// measures, its answer, and the sheet for the site's IT. Package probe/netcheck measures.
package netcheckcmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/credential"
	"hawser/internal/provision"
	"hawser/internal/version"
	"hawser/probe/netcheck"
	"hawser/transport"
)

// Program is one that has the command. Two programs have the command: a technician at his PC and somebody at the
// gateway run it on different networks.
type Program struct {
	Version version.Info
	PC      bool  // it is a technician's, and not a gateway's
	JSON    *bool // its own flag --json; nil: the command has one
	// Known reads what the program knows by itself. An error is a mistake of the user.
	Known func(*cobra.Command) (netcheck.Known, error)
}

// alpn is the protocol of its ways to Access Servers: what a firewall that looks into a hello sees.
func (p Program) alpn() string {
	if p.PC {
		return transport.ALPNAPI
	}
	return transport.ALPNAccess
}

// check is one call of the command. A struct and not closures over flags: the tests call its parts without a command
// line.
type check struct {
	program  Program
	access   []string
	relays   []string
	ports    []uint
	root     string
	pin      string
	file     string
	profile  string
	time     []string
	private  bool
	sheet    string
	contact  string
	language string
	json     *bool

	known netcheck.Known
	given provision.File
}

// New makes the command.
func New(p Program) *cobra.Command {
	f := &check{program: p, json: p.JSON}
	c := &cobra.Command{
		Use: "netcheck", Short: "test time, names and every way to the servers, and say what to do", Args: cobra.NoArgs,
		Example: "  " + p.Version.Program + " netcheck --access hawser.example.com --pin 5f3c…\n" +
			"  " + p.Version.Program + " netcheck --file press-4.txt --it-report site.html --contact 'Maker, +49 …' --language de",
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&f.access, "access", nil, "`HOST[:PORT]` of an Access Server; may be repeated (default: the configured ones)")
	flags.StringArrayVar(&f.relays, "relay", nil, "`HOST[:PORT]` of a Relay Server; may be repeated")
	flags.UintSliceVar(&f.ports, "ports", nil, "`PORTS` to try (default: the configured ones)")
	flags.StringVar(&f.root, "root", "", "root certificate `FILE` (default: the configured or stored one)")
	flags.StringVar(&f.pin, "pin", "", "`SHA256` of the root's public key, instead of --root")
	flags.StringVar(&f.file, "file", "", "provisioning `FILE` of the gateway: names servers and root")
	flags.StringVar(&f.profile, "profile", "", "test the ways to another infrastructure, of this `NAME`: combivis; needs no root and no configuration")
	flags.BoolVar(&f.private, "private", false, "the servers have private addresses (default: as configured)")
	flags.StringArrayVar(&f.time, "time", nil, "`HOST[:PORT]` to ask for the time (default: the configured ones)")
	flags.StringVar(&f.sheet, "it-report", "", "write the sheet for the site's IT to `FILE`: HTML when it ends in .html, else text")
	flags.StringVar(&f.contact, "contact", "", "`TEXT` for the sheet: who asks, and whom to call")
	flags.StringVar(&f.language, "language", "", "`LANGUAGE` of the sheet: de or en (default: that of the system, else en)")
	if f.json == nil {
		f.json = new(bool)
		cli.JSONFlag(c, f.json)
	}
	for _, own := range []string{"access", "relay", "ports", "root", "pin", "file"} {
		c.MarkFlagsMutuallyExclusive("profile", own)
	}
	c.MarkFlagsMutuallyExclusive("root", "pin", "file")
	return c
}

// run measures, prints the report, writes the sheet, and fails without a way. Notes and live rows go to stderr, so that
// stdout is the report alone.
func (f *check) run(c *cobra.Command) error {
	n, err := f.prepare(c)
	if err != nil {
		return &answer.UsageError{Err: err}
	}
	// Before the measurement: nobody wants to wait a minute to read that a folder is missing.
	if f.sheet != "" {
		if err := checkSheetFile(f.sheet); err != nil {
			return err
		}
	}
	if f.known.Note != "" {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", f.program.Version.Program, answer.Clean(f.known.Note))
	}
	live := newLive(c.ErrOrStderr(), os.Getenv)
	n.Progress = func(row netcheck.Row) { live.row(row) }
	report := n.Run(c.Context())
	live.end()
	return f.tell(c.OutOrStdout(), report)
}

// prepare makes a Check of the flags and of what the program knows. It touches no network, so every mistake of the user
// is told at once.
func (f *check) prepare(c *cobra.Command) (*netcheck.Check, error) {
	var err error
	if f.known, err = f.program.Known(c); err != nil {
		return nil, err
	}
	if f.language, err = language(f.language, os.Getenv); err != nil {
		return nil, err
	}
	// No time before this program was built can be right.
	if f.known.Floor.IsZero() {
		f.known.Floor = f.program.Version.BuildTime()
	}
	f.known.Bounds.Private = f.known.Bounds.Private || f.private
	n := f.known.Check(f.program.alpn())
	if c.Flags().Changed("profile") {
		return n, f.ofProfile(n)
	}
	if f.file != "" {
		if f.given, err = provision.Load(f.file); err != nil {
			return nil, err
		}
		n.TimeSources = append(n.TimeSources, f.given.Time...)
	}
	if err := errors.Join(f.servers(n), f.trust(&n.Target)); err != nil {
		return nil, err
	}
	if len(f.time) > 0 {
		n.TimeSources = f.time
	}
	return n, nil
}

// ofProfile makes it a check of somebody else's infrastructure, whose Access Servers tell the time. It is for a site
// where gateways of that maker are in use: the same sheet shows what is open for them.
func (f *check) ofProfile(n *netcheck.Check) error {
	p, ok := netcheck.ProfileNamed(f.profile)
	if !ok {
		return fmt.Errorf("--profile: there is no %q: the only one is combivis", f.profile)
	}
	n.Profile, n.TimeSources, n.Bounds.Ports = &p, p.Access, p.Ports
	if len(f.time) > 0 {
		n.TimeSources = f.time
	}
	return nil
}

// servers settles whom to reach: what is typed comes before the file, and the file before what the program knows.
func (f *check) servers(n *netcheck.Check) error {
	access, err := hosts("--access", f.access)
	if err != nil {
		return err
	}
	relays, err := hosts("--relay", f.relays)
	if err != nil {
		return err
	}
	ports := f.given.Ports
	for _, p := range f.ports {
		if p == 0 || p > 65535 {
			return fmt.Errorf("--ports: %d is not 1 to 65535", p)
		}
	}
	if len(f.ports) > 0 {
		ports = nil
		for _, p := range f.ports {
			ports = append(ports, transport.Port(p))
		}
	}
	named := first(relays, f.given.Relays)
	typed := first(access, f.given.Access)
	if len(named)+len(typed) > 0 { // what is remembered may be of another infrastructure
		// Relays that are named decide about the verdict, those that are remembered do not.
		n.Relays, n.Remembered = named, false
	}
	n.Bounds.Hosts, n.Bounds.Ports = slices.Concat(first(typed, n.Bounds.Hosts), named), first(ports, n.Bounds.Ports)
	n.Hosts, n.Ports = first(typed, n.Hosts), first(ports, n.Ports)
	if len(n.Hosts) == 0 {
		return errors.New("no Access Server is named: give --access HOST")
	}
	return nil
}

// first returns the first list that is not empty. Lists are replaced and not joined: whoever names a server wants that
// one tested.
func first[T any](lists ...[]T) []T {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}

func hosts(flag string, typed []string) (list []string, err error) {
	for _, t := range typed {
		h, err := transport.ParseHost(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		list = append(list, h)
	}
	return list, nil
}

// trust settles what servers must prove; what the program knows is in t already. Where nothing says so, the report tells
// whose certificates were seen.
func (f *check) trust(t *transport.Target) (err error) {
	switch {
	case f.root != "":
		if t.Roots, err = credential.LoadPublic(f.root, identity.ParseRoots); err != nil {
			err = fmt.Errorf("read root: %w", err)
		}
	case f.pin != "":
		t.Roots = nil
		if t.Pin, err = identity.ParsePin(f.pin); err != nil {
			err = fmt.Errorf("--pin: %w", err)
		}
	case f.given.Roots != nil:
		t.Roots = f.given.Roots
	case !f.given.Pin.IsZero():
		t.Pin, t.Roots = f.given.Pin, nil
	}
	// Only here and never in a program that goes on to talk: netcheck sends nothing after the handshake.
	t.Anyone = t.Roots == nil && t.Pin.IsZero()
	return err
}

// tell prints the report first, so that it is there when the sheet cannot be
// written. No open way is an error with an exit code of its own, for scripts that commission gateways.
func (f *check) tell(w io.Writer, report netcheck.Report) (err error) {
	if *f.json {
		err = answer.JSON(w, report)
	} else {
		err = report.WriteText(w)
	}
	if err == nil && f.sheet != "" {
		err = f.writeSheet(report)
	}
	if err == nil && !report.Verdict.OK {
		err = noWay{report.Verdict.Text}
	}
	return err
}

// noWay ends a netcheck that found no open way. A type of its own, since the report has been printed: the error only
// carries the exit code and one line for a log.
type noWay struct{ text string }

func (e noWay) Error() string { return "netcheck: " + e.text }

// Code is the exit code of an error of this command, or 0 when it is another one.
func Code(err error) int {
	if _, ok := errors.AsType[noWay](err); ok {
		return answer.ExitUnreachable
	}
	return 0
}

// language reads --language; without it, that of the system counts when there is a sheet in it. The order of the
// variables is that of POSIX: the first that is set decides, also when it names a language that the sheet does not
// have.
func language(flag string, getenv func(string) string) (string, error) {
	known := func(l string) bool { return slices.Contains(netcheck.Languages(), netcheck.Language(l)) }
	if flag != "" {
		if !known(flag) {
			return "", fmt.Errorf("--language: %.20q: want de or en", flag)
		}
		return flag, nil
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if text := getenv(name); text != "" {
			if l, _, _ := strings.Cut(strings.ToLower(text), "_"); known(l) {
				return l, nil
			}
			break
		}
	}
	return string(netcheck.English), nil
}
