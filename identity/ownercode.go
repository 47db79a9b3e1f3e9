package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"strings"
	"time"
)

// The format of identity §13.
const (
	ownerPrefix   = "U"
	ownerShift    = 18 // added to the number before the check character, so that it differs from a server's code
	ownerSalt     = "hawser code v2"
	ownerContext  = "hawser auth v2\x00"
	inviteContext = "hawser invite v1\x00"
	ownerKeyBytes = 32
)

// OwnerCode is a code that an owner's Manager has made, or a gateway that is to be claimed (identity §13). Of its secret the
// server gets [OwnerCode.Auth] only. It is a type of its own, so that no program sends one where a server's [Code] belongs.
// The zero OwnerCode is none.
type OwnerCode struct {
	code Code
}

// NewOwnerCode returns a random code. Who registers it makes sure that its lookup id is unused.
func NewOwnerCode() OwnerCode {
	return OwnerCode{newCode(ownerShift)}
}

// IsOwnerCode tells of which class a code is that somebody typed: the owner's, or the server's. It may be mistyped all the
// same; the parser of its class says so.
func IsOwnerCode(typed string) bool {
	return len(typed) <= maxCodeInput && strings.HasPrefix(strings.Map(codeChar, typed), ownerPrefix)
}

// ParseOwnerCode reads an owner's code as people type it, with the leniency of [ParseCode]. The fault is [FaultBadCode]; the
// error holds nothing of the code.
func ParseOwnerCode(typed string) (OwnerCode, error) {
	if len(typed) > maxCodeInput {
		return OwnerCode{}, refuse(FaultBadCode, "parse owner's code: too long")
	}
	chars, ok := strings.CutPrefix(strings.Map(codeChar, typed), ownerPrefix)
	if !ok {
		return OwnerCode{}, refuse(FaultBadCode, "parse owner's code: it does not begin with U; codes of servers do not belong here")
	}
	c, err := checkCode(chars, ownerShift)
	return OwnerCode{c}, err
}

// String returns the code as a person reads and types it: U-XXXX-…-XXXXC.
func (c OwnerCode) String() string {
	if c.code.chars == "" {
		return ""
	}
	return ownerPrefix + "-" + c.code.text(ownerShift)
}

// LogValue keeps the code out of logs.
func (c OwnerCode) LogValue() slog.Value { return slog.StringValue("redacted") }

// LookupID returns the first 6 characters after the U, by which a server finds the code. It is no secret.
func (c OwnerCode) LookupID() string { return c.code.LookupID() }

// Auth is what the server gets of the secret. It opens nothing but the server's answer, and belongs in no log.
func (c OwnerCode) Auth() [ownerKeyBytes]byte { return c.derive("auth") }

// InviteKey is the key of the invite of a slot; users have slot 0 only.
func (c OwnerCode) InviteKey(slot uint32) crypto.Signer {
	seed := c.derive("invite" + string(binary.BigEndian.AppendUint32(nil, slot)))
	return ed25519.NewKeyFromSeed(seed[:])
}

// AuthHash is what a server stores of what [OwnerCode.Auth] gives. A slow hash would protect nothing: see [Code.Hash].
func AuthHash(auth [ownerKeyBytes]byte) [32]byte {
	return sha256.Sum256(append([]byte(ownerContext), auth[:]...))
}

func (c OwnerCode) derive(info string) (key [ownerKeyBytes]byte) {
	b, err := hkdf.Key(sha256.New, []byte(c.code.secret()), []byte(ownerSalt), info, ownerKeyBytes)
	if err != nil { // the length is far below the limit of HKDF
		panic(err)
	}
	copy(key[:], b)
	return key
}

// Invitation is what whoever made a code tells whoever uses it, through a server that could not have forged it
// (identity §13.3). Its MAC is proof to whoever has the code, and to nobody else.
type Invitation struct {
	Domain  string
	Key     PublicKey // the domain key, to be pinned
	Subject Signed    // a [UserStatement] or [DeviceStatement]
	Invite  Signed    // an [InviteStatement] of that subject
	List    uint64    // serial of the newest list that the maker knew
}

// Invite makes the invitation of a code: who has it may state one key of the subject until end. serial and list are those of
// the invite and of the newest list that the maker knows; signer is the domain key, or a key that may state the subject
// (identity §15.2). The faults are those of [Sign].
func (p Pinned) Invite(code OwnerCode, subject Signed, slot uint32, end time.Time, serial, list uint64, signer crypto.Signer) (Invitation, error) {
	key, err := NewPublicKey(code.InviteKey(slot).Public())
	if err != nil {
		return Invitation{}, err
	}
	s := InviteStatement{Domain: p.Domain, Slot: slot, Key: key, Exp: end.Unix(), Serial: serial}
	switch subject := subject.Statement.(type) {
	case UserStatement:
		s.User = subject.User
	case DeviceStatement:
		s.UID = subject.UID
	}
	invite, err := Sign(s, signer)
	return Invitation{Domain: p.Domain, Key: p.Key, Subject: subject, Invite: invite, List: list}, err
}

// MAC is the code's MAC over the invitation into the infrastructure whose root has this SPKI hash. The fault is that of
// [Invitation.Open] for statements that are not of one subject.
func (i Invitation) MAC(code OwnerCode, root SPKI) ([sha256.Size]byte, error) {
	name, invite, err := i.subject()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	raw, ok := i.Key.ed25519()
	if !ok {
		return [sha256.Size]byte{}, refuse(FaultWrongKey, "invite: a domain key is Ed25519")
	}
	subject, stated := sha256.Sum256([]byte(i.Subject.JWS)), sha256.Sum256([]byte(i.Invite.JWS))
	key := code.derive("mac")
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(inviteContext))
	for _, field := range [][]byte{[]byte(name.Kind), root[:], []byte(name.Domain), raw, []byte(name.ID), binary.BigEndian.AppendUint32(nil, invite.Slot),
		subject[:], stated[:], binary.BigEndian.AppendUint64(nil, i.List), binary.BigEndian.AppendUint64(nil, uint64(invite.Exp))} {
		mac.Write(binary.BigEndian.AppendUint16(nil, uint16(len(field))))
		mac.Write(field)
	}
	return [sha256.Size]byte(mac.Sum(nil)), nil
}

// Open checks the answer to a code: its MAC, for the root of this connection, that the invite's key is the code's own, and
// that the certificate of the answer is the subject's. It returns the key of the invite, with which the holder of name states
// its own key. Then the chain that this makes is to be judged. Nothing of an answer that is refused may be stored. The faults
// are [FaultMalformed], [FaultBadSignature] for the MAC, [FaultWrongKey] and [FaultNotStated]. Whose invitation it is, is
// the MAC's to say: a server that has only Auth cannot make one.
func (i Invitation) Open(code OwnerCode, mac []byte, root SPKI, name Name) (crypto.Signer, error) {
	stated, invite, err := i.subject()
	if err != nil {
		return nil, err
	}
	want, err := i.MAC(code, root)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(want[:], mac) {
		return nil, refuse(FaultBadSignature, "open invitation: the owner of the code did not say this")
	}
	key := code.InviteKey(invite.Slot)
	if pub, err := NewPublicKey(key.Public()); err != nil || pub != invite.Key {
		return nil, refuse(FaultWrongKey, "open invitation: the invite is of another code or slot")
	}
	if stated != name {
		return nil, refuse(FaultNotStated, "open invitation: the certificate is somebody else's")
	}
	return key, nil
}

// subject is whom both statements are about.
func (i Invitation) subject() (Name, InviteStatement, error) {
	var name Name
	switch s := i.Subject.Statement.(type) {
	case UserStatement:
		name = UserName(s.Domain, s.User)
	case DeviceStatement:
		name = DeviceName(s.Domain, s.UID)
	}
	invite, ok := i.Invite.Statement.(InviteStatement)
	if !ok || name.Domain != i.Domain || invite.Domain != i.Domain || invite.name() != name {
		return Name{}, InviteStatement{}, refuse(FaultMalformed, "invite: not a statement and an invite of one subject of the domain")
	}
	return name, invite, nil
}

func (s InviteStatement) name() Name { return s.Subject.name(s.Domain) }

// name is the subject as a certificate names it.
func (s Subject) name(domain string) Name {
	if s.User != "" {
		return UserName(domain, s.User)
	}
	return DeviceName(domain, s.UID)
}
