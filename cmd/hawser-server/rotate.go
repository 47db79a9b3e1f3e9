package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/server"
)

// rotateCommand asks no server: the new keys lie ready until it starts.
func rotateCommand() *cobra.Command {
	var o server.RotateOptions
	var asJSON bool
	c := &cobra.Command{
		Use: "rotate", Short: "replace the keys of an Access Server, under the same root",
		Long: "rotate makes a new issuing, time and grant key with the root's key, and has the root refuse the old ones. Restart the server:\n" +
			"it takes them then, and until then nothing has changed. What the old keys have issued counts for 7 more days, in which\n" +
			"everybody renews by himself. With --now, for keys that were stolen, it counts no more at once, for everybody who has heard\n" +
			"of it from this server; a stolen copy of the server does not tell. Run it as the server's user.",
		Example: "  hawser-server rotate --now --dir /etc/hawser --root-dir /media/root && systemctl restart hawser-server",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := server.Rotate(o)
			if err != nil {
				return err
			}
			return cli.Print(c, asJSON, r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "access       %s\nissuing key  %s\nold keys     count until %s\nnext         restart the server, which takes the new keys; put the root's key away again\n",
					r.Access, r.CA, r.From.Format(time.RFC3339))
				return err
			})
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "`DIR` that init has made, of an Access Server")
	c.Flags().StringVar(&o.RootDir, "root-dir", "", "`ROOTDIR` with root.key and root.pem (default: root in DIR)")
	c.Flags().BoolVar(&o.AtOnce, "now", false, "the old keys were stolen: they count no more at once")
	cli.JSONFlag(c, &asJSON)
	mustHave(c, "dir")
	return c
}
