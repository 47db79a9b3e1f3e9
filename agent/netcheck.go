package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/probe"
	"hawser/transport"
)

// NetcheckReport is what a netcheck found: its JSON is cli §2's.
type NetcheckReport = probe.Report

// Netcheck looks from this machine at all that the agent needs: time, resolvers,
// names, and each host × port. It uses neither the identity nor the state
// directory, so it works beside an agent that runs, and before enrolment. It
// blocks for 30 s at most; progress gets each row as it comes.
func Netcheck(ctx context.Context, o Options, progress func(fmt.Stringer)) (NetcheckReport, error) {
	if len(o.Config.Access) == 0 {
		return NetcheckReport{}, errors.New("netcheck: no Access Server is named in the configuration: give --access HOST")
	}
	if o.Config.Roots == nil {
		return NetcheckReport{}, errors.New("netcheck: no root to verify servers with: give --root FILE")
	}
	n := newNetcheck(o, progress)
	n.Hosts, n.Ports, n.TimeSources = o.Config.Access, o.Config.Ports, o.Config.timeSources(o.Board.TimeServers())
	return n.Run(ctx), nil
}

// NetcheckProfile looks at what the infrastructure of a built-in profile needs.
// It needs no root and no Access Server in the configuration, and blocks for
// 60 s at most. The time is asked of sources, or else of the profile's Access
// Servers.
func NetcheckProfile(ctx context.Context, o Options, name string, sources []string, progress func(fmt.Stringer)) (NetcheckReport, error) {
	if err := CheckProfile(name); err != nil {
		return NetcheckReport{}, err
	}
	p, _ := probe.ProfileNamed(name)
	if len(sources) == 0 {
		sources = p.Access
	}
	n := newNetcheck(o, progress)
	n.Profile, n.TimeSources = &p, sources
	return n.Run(ctx), nil
}

// CheckProfile says whether there is a built-in profile of that name.
func CheckProfile(name string) error {
	if _, ok := probe.ProfileNamed(name); !ok {
		return fmt.Errorf("--profile: there is no %q: the only one is combivis", name)
	}
	return nil
}

func newNetcheck(o Options, progress func(fmt.Stringer)) probe.Netcheck {
	floor, ceiling := o.Build, o.Build.AddDate(ceilingYears, 0, 0)
	resolver := &probe.Resolver{Servers: o.Config.DNS, Dial: o.DialContext, Private: o.Config.Private}
	return probe.Netcheck{
		Resolver: resolver,
		SNTP:     &probe.SNTP{Resolve: resolver.Resolve, Dial: o.DialContext, Now: o.Board.Now},
		Dialer:   &transport.Dialer{Resolve: resolver.Resolve, DialContext: o.DialContext},
		Target: transport.Target{ALPN: transport.ALPNAccess, Name: identity.Name{Kind: identity.KindAccess}, Roots: o.Config.Roots,
			// As in the prelude: a clock that is wrong must not hide an open port.
			At:          func(leaf *x509.Certificate) time.Time { return later(floor, leaf.NotBefore) },
			ClockUnsure: true},
		Floor: floor, Ceiling: ceiling, Progress: func(row probe.Row) { progress(row) },
	}
}

// CheckSheetFile says, before anything is measured, why a sheet could not be
// written to file: better now than after a minute.
func CheckSheetFile(file string) error {
	why := error(nil)
	if dir, err := os.Stat(filepath.Dir(file)); err != nil {
		why = pathless(err)
	} else if !dir.IsDir() {
		why = errors.New("its folder is no folder")
	}
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() { // to replace a device would break the machine
		why = errors.New("it is no regular file")
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("write report %s: %w: name a file in a folder that exists", file, why)
}

// WriteSheet writes the hand-over sheet for the site's IT: HTML when the name
// of the file ends in .html, else plain text. A file that is there is replaced
// by the whole new one or not at all.
func WriteSheet(file string, o Options, r NetcheckReport) error {
	s := &probe.Sheet{Report: r, At: o.Board.Now(), Program: "hawser-agent " + o.Version}
	if name, err := os.Hostname(); err == nil {
		s.Machine = name
	}
	if id, err := ShowIdentity(o.Config.Data); err == nil && id.Enrolled {
		s.Gateway = id.UID + " in domain " + id.Domain
	} else if err != nil {
		s.Gateway = "not readable by this user"
	}
	b := s.Text()
	if strings.EqualFold(filepath.Ext(file), ".html") {
		b = s.HTML()
	}
	if err := durable.WriteFile(file, b, 0o644); err != nil {
		return fmt.Errorf("write report %s: %w: check the folder and the room in it", file, pathless(err))
	}
	return nil
}

// pathless is an error without the path, which its reader has just been told.
func pathless(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
