package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// The rows of access §1, one type a table. A zero time is one that has not been.
type (
	// Domain is whose users and devices belong together. Infrastructure marks the one that came with the
	// infrastructure: its admins run it. Key is the domain key, once its founder has logged in.
	Domain struct {
		Name           string
		Created        time.Time
		Infrastructure bool
		Key            identity.PublicKey
	}
	// User is who may log in.
	User struct {
		Domain, Name     string
		Created, Revoked time.Time
	}
	// UserKey is one machine on which a user logged in. NotAfter is that of the newest certificate.
	UserKey struct {
		Domain, User    string
		SPKI            identity.SPKI
		Login, NotAfter time.Time
	}
	// Member is a device or a relay: what enrolls by activation code. A device's ID is its UID, in its domain; a
	// relay's ID is its name, and it has no domain.
	Member struct {
		Kind             identity.Kind // which table
		ID, Domain, Name string
		Created          time.Time
		Code             string // lookup id of the code that it was made with
		CodeHash         Hash
		CodeExpires      time.Time
		SPKI             identity.SPKI // zero: not enrolled
		Chain            string        // PEM; the newest one
		Enrolled         time.Time     // renewals leave it
		NotAfter         time.Time
		Hints            map[string]string
		Revoked          time.Time
		Folder           string // of a device: by its newest statement, as is its Name
	}
	// Code is what an activation or login code is for. Used and UsedAt are of login codes alone. Those of an owner have
	// the rest: what he says to whoever uses the code (identity §13.3).
	Code struct {
		Lookup  string
		Kind    identity.Kind
		Domain  string
		Subject string // a member's ID, or a user's name
		Hash    Hash
		Expires time.Time
		Used    identity.SPKI
		UsedAt  time.Time

		MAC        Hash // zero: a server's code, or that of a batch
		List       int64
		Statements []string
	}
	// Slot is one gateway's part of a batch: one code for several devices. The code's own row has no Subject, and the
	// statements about whoever signed.
	Slot struct {
		Lookup     string // of the code
		Slot       int64  // from 1
		Subject    string // the ID of a device
		MAC        Hash
		Statements []string // about the device, and its invite
		Expires    time.Time
		Used       identity.SPKI // zero: nobody has it yet
		UsedAt     time.Time
	}
	// Statement is what an owner has stated (identity §11), kept for others. ID is the hash of JWS.
	Statement struct {
		Domain  string
		ID      Hash
		Typ     string
		Subject string        // of whom: see DeviceSubject and UserSubject; empty: a list
		SPKI    identity.SPKI // the key that is stated or invited; zero: none is
		Serial  int64
		Ends    time.Time // by itself; zero: never
		JWS     string
		At      time.Time
	}
	// DomainReset is the root's last word for the key of a domain (identity §12.2). Key and Sequence are those of Reset.
	DomainReset struct {
		Domain   string
		Key      identity.PublicKey
		Sequence int64
		Reset    []byte // as it was signed
		At       time.Time
	}
	// RelayAddresses are where clients reach a relay, as was said when it was added. What it says of itself counts only
	// without them.
	RelayAddresses struct {
		Relay string
		Hosts []string
		Ports []transport.Port
	}
	// RevokedKey is a key that nobody accepts any more.
	RevokedKey struct {
		SPKI identity.SPKI
		Name string // URI
		When time.Time
	}
	// Session is one session between a user and a device.
	Session struct {
		ID             string
		Epoch          int
		Domain         string
		Device         identity.UID
		User           string
		Relay          string
		Lost           string // the relay that its last move left
		Instance       string // the Runtime's process that holds it
		Created, Ended time.Time
		Reason         transport.Reason
	}
	// Reported says that a session report is in the audit, by the SHA-256 of its JWS.
	Reported struct {
		ID Hash
		At time.Time
	}
	// Join is what is known of the join-states of a device (identity §19), with this key. State and Next are hashes of them.
	Join struct {
		ID, Domain  string // as those of the device
		SPKI        identity.SPKI
		Counter     int64 // of the newest that the device is known to have; 0: of none
		State       Hash
		NextCounter int64 // of the one that was handed out last; 0: none waits
		Next        Hash
		Instances   []string  // processes that were there, the newest first
		Changed     time.Time // when the last one was handed out
		Cloned      time.Time // since when two machines have been using this key; zero: one does
		// Accepted is the key that the owner has chosen since; zero: he has not.
		Accepted identity.SPKI
		Fresh    []FreshKey
	}
	// FreshKey is a key that a machine with a cloned identity has made.
	FreshKey struct {
		Key      identity.PublicKey `json:"key"`
		Address  string             `json:"address"` // host and port
		Instance string             `json:"instance"`
		Since    time.Time          `json:"since"` // it was shown first
		At       time.Time          `json:"at"`    // and last
	}
	// Measured is what one end knows of the relays; Key says which end, Relays is JSON.
	Measured struct {
		Key    string
		At     time.Time
		Relays json.RawMessage
	}
	// Decision is the last relay choice for a device and user; Choice is JSON.
	Decision struct {
		Device identity.UID
		User   string
		At     time.Time
		Choice json.RawMessage
	}
	// Node is an Access Server that may take part: its name, the SPKI of its issuing CA, and where it answers others.
	Node struct {
		Name  string
		CA    identity.SPKI
		Hosts []string
		Ports []transport.Port
	}
	// Presence says to which node a device or relay is attached. Name is a URI, Body is JSON.
	Presence struct {
		Name, Node, Run string
		Since           time.Time
		Body            json.RawMessage
	}
)

// Hash is a SHA-256, in hex where it is written. Codes are stored as hashes: a copy of the database enrolls nobody.
type Hash [sha256.Size]byte

// MarshalText returns hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads hex.
func (h *Hash) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) {
		return errors.New("parse hash: wrong length")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// IsEnrolled reports whether the member has an identity.
func (m *Member) IsEnrolled() bool { return !m.Enrolled.IsZero() }

// IsBatch reports whether the code is that of several devices, which are in its slots.
func (c *Code) IsBatch() bool { return c.Kind == identity.KindDevice && c.Subject == "" }

// With is the code as whoever has a slot uses it.
func (c Code) With(s Slot) Code {
	c.Subject, c.MAC, c.Used, c.UsedAt = s.Subject, s.MAC, s.Used, s.UsedAt
	c.Statements = append(slices.Clone(s.Statements), c.Statements...)
	return c
}

// Identity returns the name that the member's certificate carries.
func (m *Member) Identity() identity.Name {
	if m.Kind == identity.KindRelay {
		return identity.RelayName(m.ID)
	}
	return identity.Name{Kind: identity.KindDevice, Domain: m.Domain, ID: m.ID}
}

// UID returns a device's UID; zero for a relay.
func (m *Member) UID() identity.UID {
	if m.Kind == identity.KindRelay {
		return identity.UID{}
	}
	uid, err := identity.ParseUID(m.ID)
	if err != nil { // no row has been written with such an ID
		return identity.UID{}
	}
	return uid
}

// DeviceIdentity returns the name of the Runtime that a session is with.
func (s *Session) DeviceIdentity() identity.Name { return identity.DeviceName(s.Domain, s.Device) }

// DeviceSubject and UserSubject are subjects of statements. A user's label may look like a UID.
func DeviceSubject(uid identity.UID) string { return "device." + uid.String() }

// UserSubject is that of a user.
func UserSubject(user string) string { return "user." + user }

// tables are the tables of access §1 that rows live in.
type tables struct {
	domains, users, userKeys, devices, relays, codes, slots, statements, resets, addresses, joins, revoked, sessions, reports, measurements, decisions, nodes, presence, audit *table
}

var schema = newSchema()

// newSchema names the columns in the order of the seals, which are over all values of a row: a column that moves, or is
// added in the middle, makes every old row bad.
func newSchema() tables {
	member := []string{"id", "domain", "name", "created", "code", "code_hash", "code_expires", "spki", "chain", "enrolled", "not_after", "hints", "revoked", "folder"}
	t := tables{
		domains:    newTable("domains", 1, func() Row { return new(Domain) }, "name", "created", "infrastructure", "domain_key"),
		users:      newTable("users", 2, func() Row { return new(User) }, "domain", "name", "created", "revoked"),
		userKeys:   newTable("user_keys", 3, func() Row { return new(UserKey) }, "domain", "user_name", "spki", "login", "not_after"),
		devices:    newTable("devices", 1, func() Row { return &Member{Kind: identity.KindDevice} }, member...),
		relays:     newTable("relays", 1, func() Row { return &Member{Kind: identity.KindRelay} }, member...),
		codes:      newTable("codes", 1, func() Row { return new(Code) }, "lookup", "kind", "domain", "subject", "hash", "expires", "used", "used_at", "mac", "list", "statements"),
		slots:      newTable("slots", 2, func() Row { return new(Slot) }, "lookup", "slot", "subject", "mac", "statements", "expires", "used", "used_at"),
		statements: newTable("statements", 2, func() Row { return new(Statement) }, "domain", "id", "typ", "subject", "spki", "serial", "ends", "jws", "at"),
		resets:     newTable("domain_resets", 1, func() Row { return new(DomainReset) }, "domain", "domain_key", "sequence", "body", "at"),
		addresses:  newTable("relay_addresses", 1, func() Row { return new(RelayAddresses) }, "relay", "hosts", "ports"),
		joins: newTable("joins", 1, func() Row { return new(Join) }, "id", "domain", "spki", "counter", "state", "next_counter", "next_state", "instances",
			"changed", "cloned", "accepted", "fresh"),
		revoked:      newTable("revoked", 1, func() Row { return new(RevokedKey) }, "spki", "name", "at"),
		sessions:     newTable("sessions", 1, func() Row { return new(Session) }, "id", "epoch", "domain", "device", "user_name", "relay", "lost", "instance", "created", "ended", "reason"),
		reports:      newTable("reports", 1, func() Row { return new(Reported) }, "id", "at"),
		measurements: newTable("measurements", 1, func() Row { return new(Measured) }, "subject", "at", "relays"),
		decisions:    newTable("decisions", 2, func() Row { return new(Decision) }, "device", "user_name", "at", "choice"),
		nodes:        newTable("nodes", 1, func() Row { return new(Node) }, "name", "ca", "hosts", "ports"),
		presence:     newTable("presence", 1, func() Row { return new(Presence) }, "name", "node", "run", "since", "body"),
		audit:        newTable("audit", 2, func() Row { return new(Record) }, "node", "seq", "at", "domain", "actor", "action", "object", "result", "detail", "prev", "hash"),
	}
	// Presence changes with each connection, and two nodes would meet in its sums all day; a row that is lost comes
	// back when its device connects again.
	t.presence.noSums = true
	return t
}

// all lists the tables, the audit last.
func (t *tables) all() []*table {
	return []*table{t.domains, t.users, t.userKeys, t.devices, t.relays, t.codes, t.slots, t.statements, t.resets, t.addresses, t.joins, t.revoked, t.sessions, t.reports, t.measurements,
		t.decisions, t.nodes, t.presence, t.audit}
}

func (*Domain) table() *table { return schema.domains }
func (d *Domain) fields() []any {
	return []any{&d.Name, &d.Created, &d.Infrastructure, &d.Key}
}

func (*User) table() *table { return schema.users }
func (u *User) fields() []any {
	return []any{&u.Domain, &u.Name, &u.Created, &u.Revoked}
}

func (*UserKey) table() *table { return schema.userKeys }
func (k *UserKey) fields() []any {
	return []any{&k.Domain, &k.User, &k.SPKI, &k.Login, &k.NotAfter}
}

func (m *Member) table() *table {
	if m.Kind == identity.KindRelay {
		return schema.relays
	}
	return schema.devices
}
func (m *Member) fields() []any {
	return []any{&m.ID, &m.Domain, &m.Name, &m.Created, &m.Code, &m.CodeHash, &m.CodeExpires,
		&m.SPKI, &m.Chain, &m.Enrolled, &m.NotAfter, &m.Hints, &m.Revoked, &m.Folder}
}

func (*Code) table() *table { return schema.codes }
func (c *Code) fields() []any {
	return []any{&c.Lookup, (*string)(&c.Kind), &c.Domain, &c.Subject, &c.Hash, &c.Expires, &c.Used, &c.UsedAt,
		&c.MAC, &c.List, &c.Statements}
}

func (*Slot) table() *table { return schema.slots }
func (s *Slot) fields() []any {
	return []any{&s.Lookup, &s.Slot, &s.Subject, &s.MAC, &s.Statements, &s.Expires, &s.Used, &s.UsedAt}
}

func (*Statement) table() *table { return schema.statements }
func (s *Statement) fields() []any {
	return []any{&s.Domain, &s.ID, &s.Typ, &s.Subject, &s.SPKI, &s.Serial, &s.Ends, &s.JWS, &s.At}
}

func (*DomainReset) table() *table { return schema.resets }
func (r *DomainReset) fields() []any {
	return []any{&r.Domain, &r.Key, &r.Sequence, &r.Reset, &r.At}
}

func (*RelayAddresses) table() *table { return schema.addresses }
func (a *RelayAddresses) fields() []any {
	return []any{&a.Relay, &a.Hosts, &a.Ports}
}

func (*Join) table() *table { return schema.joins }
func (j *Join) fields() []any {
	return []any{&j.ID, &j.Domain, &j.SPKI, &j.Counter, &j.State, &j.NextCounter, &j.Next, &j.Instances, &j.Changed, &j.Cloned, &j.Accepted, &j.Fresh}
}

func (*RevokedKey) table() *table { return schema.revoked }
func (k *RevokedKey) fields() []any {
	return []any{&k.SPKI, &k.Name, &k.When}
}

func (*Session) table() *table { return schema.sessions }
func (s *Session) fields() []any {
	return []any{&s.ID, &s.Epoch, &s.Domain, &s.Device, &s.User, &s.Relay, &s.Lost, &s.Instance,
		&s.Created, &s.Ended, (*string)(&s.Reason)}
}

func (*Reported) table() *table { return schema.reports }
func (r *Reported) fields() []any {
	return []any{&r.ID, &r.At}
}

func (*Measured) table() *table { return schema.measurements }
func (m *Measured) fields() []any {
	return []any{&m.Key, &m.At, &m.Relays}
}

func (*Decision) table() *table { return schema.decisions }
func (d *Decision) fields() []any {
	return []any{&d.Device, &d.User, &d.At, &d.Choice}
}

func (*Node) table() *table { return schema.nodes }
func (n *Node) fields() []any {
	return []any{&n.Name, &n.CA, &n.Hosts, &n.Ports}
}

func (*Presence) table() *table { return schema.presence }
func (p *Presence) fields() []any {
	return []any{&p.Name, &p.Node, &p.Run, &p.Since, &p.Body}
}
