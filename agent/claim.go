package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/control"
)

// How often a gateway asks whether somebody has claimed it (identity §13.4), each ± 50 %. Whoever claims one waits beside it;
// one that nobody wants for a day may wait in a store-room for years.
const (
	claimEvery = time.Minute
	claimEager = 24 * time.Hour
	claimRests = time.Hour
	askTimeout = 2 * time.Minute
)

// claimPause is the time until the next question, after asking for a while. It is pure, except for chance.
func claimPause(asking, atLeast time.Duration) time.Duration {
	every := claimEvery
	if asking >= claimEager {
		every = claimRests
	}
	return max(every/2+wait.Random(every), atLeast)
}

// readClaim reads the code with which the gateway can be claimed. The error is fs.ErrNotExist before the agent has made one.
func readClaim(dir string) (identity.OwnerCode, error) {
	return credential.Load(filepath.Join(dir, claimFile), func(b []byte) (identity.OwnerCode, error) { return identity.ParseOwnerCode(string(b)) })
}

// claimCode is readClaim, but makes a code when there is none. It is on the medium before anybody sees it: a person may type
// it days later. One that a broken medium has damaged can be replaced: nobody has used it.
func (s *store) claimCode() (identity.OwnerCode, error) {
	code, err := readClaim(s.dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && identity.FaultOf(err) != identity.FaultBadCode {
		return code, err
	}
	code = identity.NewOwnerCode()
	return code, durable.WriteFile(filepath.Join(s.dir, claimFile), []byte(code.String()+"\n"), credential.Private)
}

// dropClaim removes the code: it was used, or cannot be.
func (s *store) dropClaim() error {
	path := filepath.Join(s.dir, claimFile)
	// A medium that can only be read also refuses to remove what is not there.
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the code for a claim: %w", err)
	}
	return nil
}

// claimTrust returns whom a gateway without an identity asks: the root or pin of its configuration, or the root of the identity
// that it had before.
func (a *Agent) claimTrust() (roots *identity.Roots, pin identity.SPKI, err error) {
	if a.config.Roots != nil || !a.config.Pin.IsZero() {
		return a.config.Roots, a.config.Pin, nil
	}
	roots, err = credential.Load(filepath.Join(a.store.dir, rootFile), identity.ParseRoots)
	return roots, pin, err
}

// keepAsking asks whether somebody has claimed this gateway, until somebody has, or ctx ends. Without a server or a root there
// is nobody to ask. The code goes to no log, and of it the server gets what opens its answer only.
func (a *Agent) keepAsking(ctx context.Context) {
	roots, pin, err := a.claimTrust()
	if err != nil || len(a.config.Access) == 0 {
		return
	}
	client := a.client(nil)
	client.Roots, client.Pin = roots, pin
	defer a.status.claim("")
	for began := time.Now(); ctx.Err() == nil; {
		code, err := a.showClaim()
		if err == nil {
			err = a.ask(ctx, client, code)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		switch serverReason(err) {
		case transport.Pending:
			a.status.trouble("claim", nil)
		case transport.BadCode: // it was used with another key, or nobody has used it in time
			a.log.Warn("the code for a claim is worth nothing any more: another one is shown")
			if err := a.store.dropClaim(); err == nil {
				a.showClaim()
			}
		default:
			if a.status.trouble("claim", err) {
				a.log.Warn("not claimed", "reason", transport.ReasonOf(err), "err", err)
			}
		}
		timer := time.NewTimer(claimPause(time.Since(began), control.RetryAfter(err)))
		select {
		case <-timer.C:
		case <-a.linkUp:
			a.networkUp()
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// ask is one question. Nil: the gateway is claimed, and has its identity.
func (a *Agent) ask(ctx context.Context, client *control.Client, code identity.OwnerCode) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	self, err := a.enroll(ctx, client, code, true)
	if err == nil {
		a.log.Info("claimed", "uid", self.UID, "domain", self.Name.Domain, "owner", self.DomainKey)
	}
	return err
}

// showClaim shows the code: by status, and on the console, again and again, since a person may look at it at any time.
func (a *Agent) showClaim() (identity.OwnerCode, error) {
	code, err := a.store.claimCode()
	if err != nil {
		return code, err
	}
	a.status.claim(code.String())
	if a.console != nil {
		fmt.Fprintf(a.console, "this gateway can be claimed: hawser device claim %s NAME\n", code)
	}
	return code, nil
}
