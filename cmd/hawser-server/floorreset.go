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

// floorResetCommand asks no server: what it takes is the root's key, and who has that decides (decision 0010).
func floorResetCommand() *cobra.Command {
	var o server.ResetOptions
	var json bool
	c := &cobra.Command{
		Use: "floor-reset", Short: "let a device's clock go back after it was told a time in the future",
		Long: "A device that was told a time in the future, by a server whose clock was wrong, stays offline: its floor only rises.\n" +
			"floor-reset signs, with the root's key, that this device's floor may go back. The Access Server sends it when the device asks for the time.",
		Example: "  hawser-server floor-reset --dir /etc/hawser --uid 5f3c… --to 2026-11-23 --root-dir /media/root",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			signed, err := server.SignFloorReset(o)
			if err != nil {
				return err
			}
			return printReset(c.OutOrStdout(), signed, json)
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "`DIR` that init has made, of an Access Server")
	c.Flags().StringVar(&o.UID, "uid", "", "`UID` of the device")
	c.Flags().StringVar(&o.To, "to", "", "new floor, a `TIME` in the past: RFC 3339, or a date, which begins at 0:00 UTC")
	c.Flags().StringVar(&o.RootDir, "root-dir", "", "`ROOTDIR` with root.key and root.pem (default: root in DIR)")
	cli.JSONFlag(c, &json)
	mustHave(c, "dir", "uid", "to")
	return c
}

// printReset says what is left to do: nothing tells the server that a reset has arrived, and so nobody removes the file
// by itself.
func printReset(w io.Writer, r server.SignedReset, asJSON bool) error {
	if asJSON {
		return answer.JSON(w, struct {
			UID      string    `json:"uid"`
			Floor    time.Time `json:"floor"`
			Sequence uint64    `json:"sequence"`
			File     string    `json:"file"`
		}{r.UID.String(), r.To, r.Sequence, r.File})
	}
	_, err := fmt.Fprintf(w, "device       %s\nnew floor    %s\nsequence     %d\nfile         %s\n"+
		"next         the device gets it by itself, at its next try, from this Access Server; copy the file to the same place of each other one,\n"+
		"             and remove it when hawser device list shows the device online\n",
		r.UID, r.To.Format(time.RFC3339), r.Sequence, r.File)
	return err
}
