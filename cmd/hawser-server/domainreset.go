package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/server"
)

// domainResetCommand asks no server: what it takes is the root's key, and who has that decides (identity §12.2).
func domainResetCommand() *cobra.Command {
	var o server.DomainResetOptions
	var asJSON bool
	c := &cobra.Command{
		Use: "reset NAME", Short: "give a domain another key after its own was lost or stolen",
		Long: "reset signs, with the root's key, that the key of a domain is KEY: the only cure for one that was lost without a copy, or stolen.\n" +
			"Whatever the key before has signed, and whatever it signs from now on, is worth nothing. The Access Server takes the reset\n" +
			"by itself, and gives it to the gateways. Make sure that KEY is the founder's: ask him on another way.",
		Example: "  hawser-server domain reset default --key MCow… --dir /etc/hawser --root-dir /media/root",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Domain = args[0]
			r, err := server.SignDomainReset(o)
			if err != nil {
				return err
			}
			signed := struct {
				Domain   string `json:"domain"`
				Key      string `json:"key"`
				SPKI     string `json:"spki_sha256"`
				Sequence uint64 `json:"sequence"`
				File     string `json:"file"`
			}{r.Domain, r.Key.String(), r.Key.SPKI().String(), r.Sequence, r.File}
			return cli.Print(c, asJSON, signed, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "domain       %s\nkey          %s\nfingerprint  %s\nsequence     %d\nfile         %s\n"+
					"next         the founder gives the same hawser login again; Managers of others say hawser domain accept --fingerprint\n"+
					"             %s, which he tells them; put the root's key away again\n",
					r.Domain, r.Key, r.Key.SPKI(), r.Sequence, r.File, r.Key.SPKI())
				return err
			})
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "`DIR` that init has made, of an Access Server")
	c.Flags().StringVar(&o.Key, "key", "", "the new domain `KEY`, as hawser login prints it with domain-taken")
	c.Flags().StringVar(&o.RootDir, "root-dir", "", "`ROOTDIR` with root.key and root.pem (default: root in DIR)")
	cli.JSONFlag(c, &asJSON)
	mustHave(c, "dir", "key")
	return c
}
