package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hawser/internal/answer"
	"hawser/internal/durable"
	"hawser/manager"
)

// maxPassphrase bounds the file of one, in bytes.
const maxPassphrase = 1024

// passphrase is where a command gets that of the domain key.
type passphrase struct {
	file string
	none bool
	// trustClock is of the commands that shut somebody out: a stolen server must not keep an admin from it by a false time.
	trustClock bool
	yes        bool // nobody is asked whether what is signed is right
}

func yesFlag(cmd *cobra.Command, p *passphrase) {
	cmd.Flags().BoolVar(&p.yes, "yes", false, "show what is signed again, and do not ask")
}

func trustClockFlag(cmd *cobra.Command, p *passphrase) {
	cmd.Flags().BoolVar(&p.trustClock, "trust-clock", false, "sign though the servers say another time: only after a look at another clock")
}

// flags gives a command its flags. fresh: it may make a domain key.
func (p *passphrase) flags(cmd *cobra.Command, fresh bool) {
	cmd.Flags().StringVar(&p.file, "passphrase-file", "", "`FILE` with the passphrase of the domain key, which nobody else may read (default: ask for it)")
	if fresh {
		cmd.Flags().BoolVar(&p.none, "no-passphrase", false, "keep a new domain key without a passphrase")
		cmd.MarkFlagsMutuallyExclusive("passphrase-file", "no-passphrase")
	}
}

// into tells m whom to ask. Without a file and without a terminal there is nobody.
func (p *passphrase) into(cmd *cobra.Command, m *manager.Manager) {
	m.NoPassphrase, m.TrustClock = p.none, p.trustClock
	in, ok := cmd.InOrStdin().(*os.File)
	switch {
	case p.file != "":
		m.Passphrase = func(bool) (string, error) { return p.read() }
	case ok && term.IsTerminal(int(in.Fd())):
		m.Passphrase = func(fresh bool) (string, error) { return typedPhrase(cmd, int(in.Fd()), fresh) }
	}
}

func (p *passphrase) read() (string, error) {
	b, err := durable.ReadPrivate(p.file, maxPassphrase)
	if err != nil {
		return "", answer.Usage("read passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// typedPhrase asks a person, twice for a new one, and shows nothing of it.
func typedPhrase(cmd *cobra.Command, fd int, fresh bool) (string, error) {
	ask := func(what string) (string, error) {
		fmt.Fprint(cmd.ErrOrStderr(), what)
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(b), err
	}
	if !fresh {
		return ask("passphrase of the domain key: ")
	}
	first, err := ask("new passphrase for the domain key, 10 characters at least: ")
	if err != nil {
		return "", err
	}
	again, err := ask("once more: ")
	if err == nil && again != first {
		err = answer.Usage("passphrase: the two differ")
	}
	return first, err
}
