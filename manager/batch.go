package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/api"
)

// Limits of a batch (identity §13.5).
const (
	maxBatch     = 1000
	maxBatchDays = 30
	maxBatchFile = 8 << 20
)

// batchFile is a batch of which the server may not have all pieces. It has the code, and is private like the rest of a home.
const batchFile = "batch.json"

// NewBatch is devices that wait for their gateways, with one code for all.
type NewBatch struct {
	Name    string    `json:"name"`    // of the devices, without their numbers
	Folder  string    `json:"folder"`  // empty for none
	Devices int       `json:"devices"` // how many
	Lookup  string    `json:"lookup"`  // by which the batch is named
	Code    string    `json:"code"`    // shown once; no server has it. Empty: it is in File
	Expires time.Time `json:"expires"`
	File    string    `json:"file"` // the provisioning file, or empty
}

// openBatch is batch.json.
type openBatch struct {
	Domain  string
	User    string
	Batch   NewBatch // with the code
	Pieces  []api.BatchRequest
	ForDays int
}

// batchNames are the names of the devices: NAME-01 to NAME-50. Numbers are of one length, so that lists have them in order.
func batchNames(name string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%0*d", name, len(strconv.Itoa(n)), i+1))
	}
	return names
}

// AddBatch states n devices, NAME-01 and so on, and makes one code for the gateways of all, good for some days. The server
// takes it in pieces, and nobody is told the code before it has the last one. A batch that was cut off before is finished: with
// the same code, also after a power cut. CloseBatch forgets it when the code has been printed or written.
func (a *Account) AddBatch(ctx context.Context, name, folder string, n, days int) (b NewBatch, err error) {
	switch {
	case n < 1 || n > maxBatch:
		return b, usage("batch: want 1 to %d gateways", maxBatch)
	case days < 1 || days > maxBatchDays:
		return b, usage("days: want 1 to %d: the code is in every copy of an image", maxBatchDays)
	}
	if err := checkPlace(batchNames(name, n)[n-1], folder); err != nil {
		return b, err
	}
	if _, err := a.readAndConfirm(ctx); err != nil {
		return b, err
	}
	open, err := a.home.readBatch()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return b, err
	case open.Domain != a.state.config.Domain || open.User != a.state.config.User || a.m.now().After(open.Batch.Expires):
	case open.Batch.Name != name || open.Batch.Folder != folder || open.Batch.Devices != n || open.ForDays != days:
		was := open.Batch
		return b, usage("a batch was cut off: give hawser device add %s --batch %d --days %d with the same folder (%q) to finish it, or "+
			"hawser device revoke --batch %s", was.Name, was.Devices, open.ForDays, was.Folder, was.Lookup)
	default:
		return open.Batch, a.sendBatch(ctx, open)
	}
	for range maxTries {
		if open, err = a.makeBatch(ctx, name, folder, n, days); err != nil {
			return b, err
		}
		if err = a.sendBatch(ctx, open); transport.ReasonOf(err) != transport.CodeTaken {
			break
		}
	}
	return open.Batch, err
}

// makeBatch signs a batch, and keeps it here before the server gets any of it.
func (a *Account) makeBatch(ctx context.Context, name, folder string, n, days int) (*openBatch, error) {
	op := "add batch " + name
	names := batchNames(name, n)
	devices, err := a.Devices(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if d.State != api.StateRevoked && slices.Contains(names, d.Name) {
			return nil, fail(api.NameTaken, op, fmt.Errorf("there is a device %s", d.Name))
		}
	}
	p, err := a.pen(false)
	if err != nil {
		return nil, err
	}
	code := identity.NewOwnerCode()
	open := &openBatch{Domain: a.state.config.Domain, User: a.state.config.User, ForDays: days,
		Batch: NewBatch{Name: name, Folder: folder, Devices: n, Lookup: code.LookupID(), Code: code.String()}}
	size := maxPost
	for i, name := range names {
		stated, err := a.newDevice(p, name, folder)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			open.Batch.Expires = endOf(stated.Serial, time.Duration(days)*24*time.Hour).UTC().Truncate(time.Second)
		}
		subject, err := identity.Sign(stated, p.key)
		if err != nil {
			return nil, err
		}
		sent, err := a.invite(code, p, subject, uint32(i+1), stated.Serial, open.Batch.Expires)
		if err != nil {
			return nil, err
		}
		slot := api.NewSlot{MAC: sent.MAC, Statements: sent.Statements[:2]}
		bytes := len(sent.Statements[0]) + len(sent.Statements[1]) + 128
		if size+bytes > maxPost {
			size = 0
			open.Pieces = append(open.Pieces, api.BatchRequest{Lookup: sent.Lookup, Hash: sent.Hash, List: sent.List, Signers: list(p.signers)})
		}
		size += bytes
		last := &open.Pieces[len(open.Pieces)-1]
		last.Slots = append(last.Slots, slot)
	}
	return open, a.home.writeBatch(open)
}

// sendBatch gives the server all pieces. What it has already it takes again. A batch that it refuses ends as a whole.
func (a *Account) sendBatch(ctx context.Context, open *openBatch) error {
	op, sent := "add batch "+open.Batch.Name, 0
	for _, piece := range open.Pieces {
		a.m.progress(fmt.Sprintf("adding gateways: %d of %d", sent, open.Batch.Devices))
		err := a.do(ctx, op, http.MethodPost, "/batches", piece, nil)
		switch reason := transport.ReasonOf(err); {
		case err == nil:
			sent += len(piece.Slots)
			continue
		case reason == transport.CodeTaken && sent == 0: // nothing of it is there, or all of it is somebody else's
			return errors.Join(err, a.home.forgetBatch(open.Batch.Lookup))
		case isFinal(err), reason == transport.CodeTaken, reason == api.NameTaken:
			if _, ended := a.EndBatch(ctx, open.Batch.Lookup); ended != nil && transport.ReasonOf(ended) != api.NotFound {
				return errors.Join(err, ended)
			}
		}
		return err
	}
	return nil
}

// CloseBatch forgets the code of a batch, which somebody else has now.
func (a *Account) CloseBatch(b NewBatch) error { return a.home.forgetBatch(b.Lookup) }

// EndBatch makes the code of a batch worthless, and revokes its devices that still wait for a gateway. Those whose gateways have
// enrolled stay.
func (a *Account) EndBatch(ctx context.Context, lookup string) (ended api.BatchEnded, err error) {
	if !isLookup(lookup) {
		return ended, usage("batch: want the 6 characters by which hawser device add has named it")
	}
	err = a.do(ctx, "end batch "+lookup, http.MethodPost, "/batches/"+url.PathEscape(lookup)+"/end", nil, &ended)
	if err != nil && transport.ReasonOf(err) != api.NotFound {
		return ended, err
	}
	return ended, errors.Join(err, a.home.forgetBatch(lookup))
}

// isLookup keeps typing errors away from the server.
func isLookup(s string) bool {
	return len(s) == len(identity.NewOwnerCode().LookupID()) && !slices.ContainsFunc([]rune(s), func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z')
	})
}

// BatchKeys are the gateways of batches whose keys nobody has confirmed: those that were typed, or those of one batch, or all.
// Names and keys are as the owner has stated them; address and hints are what the gateways say of themselves, by the server.
func (a *Account) BatchKeys(ctx context.Context, typed []string, lookup string, all bool) (waiting []StatedDevice, err error) {
	for _, one := range typed {
		if err := checkTyped(one); err != nil {
			return nil, err
		}
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return nil, err
	}
	var wanted []identity.UID
	for _, one := range typed {
		stated, err := a.device(pool, one)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, stated.UID)
	}
	devices, err := a.Devices(ctx)
	if err != nil {
		return nil, err
	}
	keys := a.batchKeys(pool)
	for _, d := range devices {
		if !keys[deviceKey{d.UID, d.SPKI}] || !all && d.Lookup != lookup && !slices.Contains(wanted, d.UID) {
			continue
		}
		stated, err := a.device(pool, d.UID.String())
		if err != nil {
			return nil, err
		}
		d.Name, d.Folder = stated.Name, stated.Folder
		waiting = append(waiting, StatedDevice{Device: d, Key: KeyUnconfirmed})
	}
	return waiting, nil
}

// batchKeys are the keys that came with a batch and can be confirmed.
func (a *Account) batchKeys(pool statements) map[deviceKey]bool {
	keys, near := make(map[deviceKey]bool), a.near(pool)
	for _, s := range pool {
		key, ok := s.Statement.(identity.KeyStatement)
		if !ok || key.UID.IsZero() || a.isConfirmed(near[key.Subject], key) {
			continue
		}
		if invite, _, ok := a.waits(near[key.Subject], s); ok && invite.Slot != 0 {
			keys[deviceKey{key.UID, key.Key.SPKI()}] = true
		}
	}
	return keys
}

func (h home) readBatch() (*openBatch, error) {
	b, err := durable.ReadPrivate(h.path(batchFile), maxBatchFile)
	if err != nil {
		return nil, err
	}
	open := new(openBatch)
	if err := json.Unmarshal(b, open); err != nil {
		return nil, usage("read %s: %w", h.path(batchFile), err)
	}
	return open, nil
}

func (h home) writeBatch(open *openBatch) error {
	b, err := json.Marshal(open)
	if err != nil {
		return err
	}
	unlock, err := h.lock()
	if err != nil {
		return asUsage(err)
	}
	defer unlock.Close()
	return asUsage(durable.WriteFile(h.path(batchFile), b, credential.Private))
}

// forgetBatch removes the file of a batch. That of another one stays.
func (h home) forgetBatch(lookup string) error {
	unlock, err := h.lock()
	if err != nil {
		return asUsage(err)
	}
	defer unlock.Close()
	open, err := h.readBatch()
	if errors.Is(err, fs.ErrNotExist) || err == nil && open.Batch.Lookup != lookup {
		return nil
	}
	return asUsage(os.Remove(h.path(batchFile)))
}
