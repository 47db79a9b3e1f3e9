package agent

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/owner"
	"hawser/internal/wait"
	"hawser/transport/control"
	"hawser/transport/wire"
)

const (
	freshFile    = "fresh.key" // made when the server says that another machine uses device.key
	acceptedFile = "accepted"  // what takes its place; there while it is being put there

	// How often a join-state is written, or a fresh key removed: an honest server gives one a day, and one to each process. A
	// server that gives more must not wear out the flash.
	joinCost  = 4 * time.Hour
	joinBurst = 5 * joinCost
)

// FreshKey is the key that the gateway has made because another machine uses its identity.
type FreshKey struct {
	SPKI  string `json:"spki_sha256"`
	Words string `json:"words"` // four, by which people tell the machines apart
}

// joinRate is until when the join-states that were written so far are paid for.
type joinRate struct{ paid time.Time }

// take reports whether one may be written now, and counts it. It is pure.
func (r *joinRate) take(now time.Time) bool {
	if r.paid.Before(now) {
		r.paid = now
	}
	if r.paid.Sub(now)+joinCost > joinBurst {
		return false
	}
	r.paid = r.paid.Add(joinCost)
	return true
}

// careForKey stores the join-states that the server gives over a link, and shows it a fresh key if it wants one. leave ends
// the link. All of it has ended before the next hello, which so says what is on the medium.
func (a *Agent) careForKey(ctx context.Context, care *sync.WaitGroup, link *control.Link, h *control.Handler, leave func()) {
	if link.Welcome.Cloned {
		ids := make(chan wire.Identity, 1)
		h.Identity = func(m wire.Identity) {
			select {
			case ids <- m:
			default: // it comes again, by the next link at the latest
			}
		}
		care.Go(func() { a.waitForChoice(ctx, link, ids, leave) })
		return
	}
	a.single()
	joins := make(chan wire.JoinState, 1)
	h.JoinState = func(m wire.JoinState) {
		select {
		case joins <- m:
		default:
		}
	}
	care.Go(func() { a.keepJoinStates(ctx, link, joins) })
}

// keepJoinStates stores what the server gives before it says so. A join-state that cannot be stored is answered too: the
// server learns that this process is alive.
func (a *Agent) keepJoinStates(ctx context.Context, link *control.Link, joins <-chan wire.JoinState) {
	key := a.self.Load().SPKI
	for {
		select {
		case m := <-joins:
			err := errors.New("too many, or too long")
			if len(m.State) <= identity.MaxJoinStateBytes && a.joins.take(time.Now()) {
				err = a.store.saveJoin(key, m.State)
			}
			if a.status.trouble("store join-state", err) {
				a.log.Error("store join-state", "err", err)
			}
			if err != nil {
				m.Counter = 0
			}
			link.JoinStateAck(wire.JoinStateAck{Counter: m.Counter}) // Run finds a lost link as well
		case <-ctx.Done():
			return
		}
	}
}

// single notes that nobody else uses this identity. A fresh key of an alarm that is over may have been copied meanwhile.
func (a *Agent) single() {
	a.status.cloned(nil)
	a.status.trouble("identity", nil)
	path := filepath.Join(a.store.dir, freshFile)
	if _, err := os.Lstat(path); err != nil || !a.joins.take(time.Now()) {
		return
	}
	if err := os.Remove(path); err != nil {
		a.log.Warn("remove fresh key", "err", err)
	}
}

// waitForChoice shows the server a fresh key, and waits for the owner's word that it is this gateway's. Then the fresh key takes
// the place of the old one, and the link ends.
func (a *Agent) waitForChoice(ctx context.Context, link *control.Link, ids <-chan wire.Identity, leave func()) {
	self := a.self.Load()
	var key crypto.Signer
	for {
		var err error
		if key, err = a.showFreshKey(self, link); err == nil {
			break
		}
		if a.status.trouble("make fresh key", err) {
			a.log.Error("make fresh key", "err", err)
		}
		if !wait.Sleep(ctx, time.Minute) {
			return
		}
	}
	a.status.trouble("make fresh key", nil)
	for {
		select {
		case m := <-ids:
			if err := a.accepted(self, key, m); err != nil {
				a.log.Error("the owner's choice is not taken", "err", err)
				continue
			}
			a.log.Info("the owner has chosen this gateway", "uid", self.UID)
			leave()
			return
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) showFreshKey(self *Self, link *control.Link) (crypto.Signer, error) {
	key, err := credential.MakeKey(filepath.Join(a.store.dir, freshFile))
	if err != nil {
		return nil, err
	}
	shown, err := freshKey(self.UID, key)
	if err != nil {
		return nil, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return nil, err
	}
	a.status.cloned(shown)
	if a.status.trouble("identity", fmt.Errorf("two machines use it, nobody is let in: hawser device accept chooses; this one is %q", shown.Words)) {
		a.log.Error("another machine uses the identity of this gateway", "uid", self.UID, "words", shown.Words)
	}
	_ = link.FreshKey(wire.FreshKey{CSR: csr}) // Run finds a lost link as well
	return key, nil
}

func freshKey(uid identity.UID, key crypto.Signer) (*FreshKey, error) {
	spki, err := identity.SPKIOf(key.Public())
	if err != nil {
		return nil, err
	}
	words, err := identity.Words(uid, spki)
	return &FreshKey{spki.String(), words}, err
}

// showFresh returns the fresh key of a state directory; nil: there is none.
func showFresh(dir string, uid identity.UID) (*FreshKey, error) {
	key, err := credential.Load(filepath.Join(dir, freshFile), identity.ParseKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return freshKey(uid, key)
}

// replacement is what takes the place of key, certificate and chain of statements: all of it in one file, so that after a power
// cut either none of it is there, or all of it is put where it belongs.
type replacement struct {
	Key        string   `json:"key"`   // PEM
	Chain      string   `json:"chain"` // PEM
	Statements []string `json:"statements"`
}

// accepted takes the owner's word that the fresh key is this gateway's. The server's alone is worth nothing.
func (a *Agent) accepted(self *Self, key crypto.Signer, m wire.Identity) error {
	fresh, err := newSelf([]byte(m.Chain), key, self.Roots)
	if err == nil && fresh.Name != self.Name {
		err = fmt.Errorf("the certificate is for %s", fresh.Name)
	}
	if err != nil {
		return err
	}
	known, err := a.ownerOf(self)
	if err != nil {
		return err
	}
	if _, err := known.Take(append(m.Lists, m.Statements...), a.clock.Now()); err != nil {
		return err
	}
	v := identity.Verifier{Pinned: known.Pinned(), Lists: known.Lists()}
	if _, err := v.Judge(m.Statements, fresh.peer(), a.clock.Now()); err != nil && identity.FaultOf(err) != identity.FaultStale {
		return err
	}
	pem, err := identity.MarshalKey(key)
	if err != nil {
		return err
	}
	b, err := json.Marshal(replacement{string(pem), m.Chain, m.Statements})
	if err == nil && len(b) > maxFileBytes {
		err = durable.ErrTooLarge
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(a.store.dir, acceptedFile), b, credential.Private)
	}
	return err
}

// isAccepted reports whether a replacement has to be put where it belongs.
func (s *store) isAccepted() bool {
	_, err := os.Lstat(filepath.Join(s.dir, acceptedFile))
	return err == nil
}

// finishAccepted puts a replacement where it belongs, as often as it takes.
func (s *store) finishAccepted() error {
	path := filepath.Join(s.dir, acceptedFile)
	b, err := durable.ReadPrivate(path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(b) > 0 {
		err = s.replace(b)
	}
	// Emptied before it is removed: a removal alone may be undone by a power cut, long after.
	if err == nil {
		err = durable.WriteFile(path, nil, credential.Private)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("put the accepted key in its place: %w", err)
	}
	return nil
}

func (s *store) replace(b []byte) error {
	var r replacement
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	key, err := identity.ParseKey([]byte(r.Key))
	if err != nil {
		return err
	}
	roots, err := credential.Load(filepath.Join(s.dir, rootFile), identity.ParseRoots)
	if err != nil {
		return err
	}
	self, err := newSelf([]byte(r.Chain), key, roots)
	if err != nil {
		return err
	}
	if err := owner.Rekey(s.dir, self.peer(), r.Statements); err != nil {
		return err
	}
	if err := credential.Write(s.dir, credential.File{Name: keyFile, Data: []byte(r.Key), Mode: credential.Private},
		credential.File{Name: identityFile, Data: []byte(r.Chain), Mode: credential.Private}); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.dir, freshFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
