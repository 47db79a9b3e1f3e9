package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/server"
)

// enrollCommand is what enroll of the agent is, for a relay. One of --root and --pin is needed: a relay that believed
// the first server it meets would give its code away to it.
func enrollCommand() *cobra.Command {
	var o server.EnrollOptions
	var ports, accessPorts []uint
	var code cli.Code
	var json bool
	c := &cobra.Command{
		Use: "enroll", Short: "make a relay on a machine of its own, with a code of hawser relay add",
		Example: "  hawser-server enroll --dir /etc/hawser --host relay2.example.com --access hawser.example.com --pin 5f3c…",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Ports, err = server.ParsePorts(ports); err != nil {
				return err
			}
			if o.AccessPorts, err = server.ParsePorts(accessPorts); err != nil {
				return err
			}
			word, err := code.Read(c)
			if err != nil {
				return err
			}
			// A code with a typing error is found here, by its check character, and not after a way to a server was
			// searched.
			if o.Code, err = server.ParseCode(word); err != nil {
				return err
			}
			made, err := server.Enroll(c.Context(), o)
			if err != nil {
				return err
			}
			return printEnrolled(c.OutOrStdout(), made, json)
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "`DIR` to put it in; made if it is not there")
	c.Flags().StringArrayVar(&o.Hosts, "host", nil, "`NAME|IP` at which clients reach the relay; may be repeated")
	c.Flags().StringArrayVar(&o.Access, "access", nil, "`HOST[:PORT]` of an Access Server; may be repeated")
	code.Flags(c, "the activation code of hawser relay add")
	c.Flags().StringVar(&o.RootFile, "root", "", "root certificate `FILE`")
	c.Flags().StringVar(&o.Pin, "pin", "", "`SHA256` of the root's public key, instead of --root")
	c.Flags().UintSliceVar(&ports, "ports", []uint{80, 443, 5935}, "`PORTS` to answer on")
	c.Flags().UintSliceVar(&accessPorts, "access-ports", nil, "`PORTS` on which the Access Servers answer (default 443,5935,80)")
	cli.JSONFlag(c, &json)
	mustHave(c, "dir", "host", "access")
	c.MarkFlagsOneRequired("root", "pin")
	c.MarkFlagsMutuallyExclusive("root", "pin")
	return c
}

// printEnrolled names the next command: enroll starts nothing, since the operator's service manager does.
func printEnrolled(w io.Writer, r server.EnrolledRelay, asJSON bool) error {
	if asJSON {
		return answer.JSON(w, struct {
			Dir      string    `json:"dir"`
			Name     string    `json:"name"`
			SPKI     string    `json:"spki_sha256"`
			NotAfter time.Time `json:"not_after"`
		}{r.Dir, r.Name, r.SPKI.String(), r.NotAfter})
	}
	_, err := fmt.Fprintf(w, "directory    %s\nrelay        %s\nspki sha256  %s\nvalid until  %s\nnext         hawser-server run --config %s\n",
		r.Dir, r.Name, r.SPKI, r.NotAfter.Format(time.RFC3339), r.Config)
	return err
}
