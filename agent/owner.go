package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/owner"
	"hawser/transport/wire"
)

// errNoOwner: the identity is of an enrolment that pinned no domain key. There is no way around it: whoever the
// infrastructure sends would be let in.
var errNoOwner = errors.New("no owner is known here, so that nobody is let in: " +
	"stop the agent, give hawser-agent identity reset --yes, and enroll again with a code of hawser device add")

// owners has what the gateway knows of its owner, for the identity that it has now.
type owners struct {
	dir   string
	files sync.Mutex // held by whoever reads the files to change them

	mu    sync.Mutex // guards all below
	spki  identity.SPKI
	known *owner.Owner
}

// of opens what is known, unless it is open. What could not be read is tried again each time: a file system may be mounted
// late. The error is errNoOwner, or says what is damaged.
func (o *owners) of(self *Self) (*owner.Owner, error) {
	if self == nil {
		return nil, ErrNotEnrolled
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known != nil && o.spki == self.SPKI {
		return o.known, nil
	}
	known, err := openOwner(o.dir, self)
	if err != nil {
		return nil, err
	}
	known.Lock = o.lock
	o.known, o.spki = known, self.SPKI
	return known, nil
}

// lock makes each change begin with what is in the files. A session may outlive the identity that it began with, and so the
// owner of before: it then finds that the files are somebody else's, and leaves them.
func (o *owners) lock() (io.Closer, error) {
	o.files.Lock()
	return unlock{&o.files}, nil
}

type unlock struct{ *sync.Mutex }

// Close unlocks.
func (u unlock) Close() error {
	u.Unlock()
	return nil
}

// forget makes the next call of of read the files.
func (o *owners) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = nil
}

func openOwner(dir string, self *Self) (*owner.Owner, error) {
	known, err := owner.Open(dir, self.peer())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoOwner
	}
	if err != nil {
		return nil, fmt.Errorf("what the owner has stated cannot be read, so that nobody is let in: "+
			"restore %s.0 and %[1]s.1 from a backup, or enroll again: %w", owner.SlotName, err)
	}
	return known, nil
}

// ownerOf says in log and status when no owner is known, and nobody can be let in.
func (a *Agent) ownerOf(self *Self) (*owner.Owner, error) {
	known, err := a.owners.of(self)
	if a.status.trouble("owner", err) {
		a.log.Error("owner is not known", "err", err)
	}
	return known, err
}

// maxNews is how many frames of the server may wait for the medium. What comes beyond that is lost until the next hello,
// or until a technician brings it.
const maxNews = 16

// heard is the handler of statements. The medium may be slow, and the control connection must not wait for it.
func (a *Agent) heard(m wire.Statements) {
	select {
	case a.news <- m:
	default:
		a.log.Warn("statements were not taken: the medium is too slow")
	}
}

// takeNews takes what the server sends of the owner, until ctx ends.
func (a *Agent) takeNews(ctx context.Context) {
	for {
		select {
		case m := <-a.news:
			if known, err := a.ownerOf(a.self.Load()); err == nil {
				a.take(known, m) // an error is told by status
			}
		case <-ctx.Done():
			return
		}
	}
}

// take stores what somebody has brought, and then judges the sessions again by it. The error is that of the medium.
func (a *Agent) take(known *owner.Owner, m wire.Statements) error {
	before, key := known.Chain(), known.Pinned().Key
	listed, err := false, a.takeReset(known, m) // first: it may make the rest count
	reset := known.Pinned().Key
	if err == nil {
		listed, err = known.Take(m.Statements, a.statementTime())
	}
	a.stored(err)
	if err != nil {
		if reset != key { // that much is stored, and counts
			a.sessions.judgeAgain()
		}
		return err
	}
	a.heedRelease(known, m.Statements)
	if now := known.Pinned().Key; now != reset {
		a.log.Warn("the domain has another key, by the word of the one before", "was", reset.SPKI(), "is", now.SPKI())
	}
	if listed || !slices.Equal(before, known.Chain()) || key != known.Pinned().Key {
		list, device := known.Serials()
		a.log.Info("the owner's statements are newer", "list", serialTime(list), "device", serialTime(device))
		a.sessions.judgeAgain()
	}
	return nil
}

// statementTime is the time by which statements are judged, without what lists say of it, which the owner knows.
func (a *Agent) statementTime() time.Time {
	now, _ := a.clock.Statements()
	return now
}

// stored tells whether what the owner has stated could be stored.
func (a *Agent) stored(err error) {
	if a.status.trouble("store the owner's statements", err) {
		a.log.Error("store the owner's statements", "err", err)
	}
}

// serialTime is when a statement with this serial was signed, if the signer's clock was right; zero for none.
func serialTime(serial uint64) time.Time {
	if serial == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(serial)).UTC().Truncate(time.Second)
}

// OwnerStatus is what the gateway knows of its owner.
type OwnerStatus struct {
	// DomainKey is the SPKI hash of the pinned key; its first 16 digits are what people compare.
	DomainKey string    `json:"domain_key_sha256"`
	Name      string    `json:"name"` // that the owner has given the gateway
	Folder    string    `json:"folder"`
	List      time.Time `json:"list,omitzero"`   // when the newest list was signed; left out: there is none
	Device    time.Time `json:"device,omitzero"` // when the statement about this gateway was signed
	Until     time.Time `json:"until,omitzero"`  // when it ends; left out: it does not
	Fault     string    `json:"fault"`           // why it does not stand now; empty: it does
	// TimeServers is what the time servers say when that counts for statements, because it is more than 24 h ahead of the
	// signed time; left out: it does not.
	TimeServers time.Time `json:"time_servers,omitzero"`
}

func ownerStatus(known *owner.Owner, self *Self, now time.Time) *OwnerStatus {
	list, device := known.Serials()
	st := &OwnerStatus{DomainKey: known.Pinned().Key.SPKI().String(), List: serialTime(list), Device: serialTime(device)}
	if s, err := known.Statement(); err == nil {
		if d, ok := s.Statement.(identity.DeviceStatement); ok {
			st.Name, st.Folder = d.Name, d.Folder
		}
	}
	// Without its pins, which are about others.
	v := identity.Verifier{Pinned: known.Pinned(), Lists: known.Lists()}
	verdict, err := v.Judge(known.Chain(), self.peer(), known.Lists().Now(now))
	st.Until, st.Fault = verdict.Until, string(identity.FaultOf(err))
	return st
}
