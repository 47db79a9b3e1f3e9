package agent

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/owner"
)

// Self is the gateway's identity as it is stored. Its dates have not been checked: servers check them, and the gateway
// may not know the time. A gateway whose clock says 1970 must be able to load what it will need to learn the time.
type Self struct {
	Name  identity.Name
	UID   identity.UID
	SPKI  identity.SPKI
	Roots *identity.Roots
	Cert  tls.Certificate // chain and key; Leaf is set
	chain []*x509.Certificate
	// Label is the device's display name, and DomainKey the owner's key. Only Enroll sets them.
	Label     string
	DomainKey identity.SPKI
}

// peer is what the owner's statements are about.
func (s *Self) peer() identity.Peer { return identity.Peer{Name: s.Name, SPKI: s.SPKI} }

// self loads the identity. The error is ErrNotEnrolled when there is none.
func (s *store) self() (*Self, error) { return readSelf(s.dir) }

// readSelf loads the identity from a state directory and writes nothing there. status and identity show read beside a
// running agent.
func readSelf(dir string) (*Self, error) {
	chainPEM, err := durable.ReadPrivate(filepath.Join(dir, identityFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, err
	}
	// As private as the key: whoever can write it decides whom the gateway believes.
	roots, err := credential.Load(filepath.Join(dir, rootFile), identity.ParseRoots)
	if err != nil {
		return nil, err
	}
	if err := credential.LoadRefused(dir, roots); err != nil {
		return nil, err
	}
	key, err := readKey(dir)
	if err != nil {
		return nil, err
	}
	return newSelf(chainPEM, key, roots)
}

func readKey(dir string) (crypto.Signer, error) {
	return credential.Load(filepath.Join(dir, keyFile), identity.ParseKey)
}

// key returns the device's key for its enrollment; it makes and stores one the
// first time. So a code that was spent just before a power cut works again: the server gives the same key the same
// answer (access §2).
func (s *store) key() (crypto.Signer, error) {
	return credential.MakeKey(filepath.Join(s.dir, keyFile))
}

// newSelf checks that a chain is the identity of a device with this key under
// these roots, whatever the date.
func newSelf(chainPEM []byte, key crypto.Signer, roots *identity.Roots) (*Self, error) {
	chain, err := identity.ParseChain(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	// Verified now and not when a server asks: files of two enrollments would otherwise be found out at every dial, as
	// a refusal that sounds like the server's fault.
	own := credential.Credential{Key: key, Chain: chain}
	peer, err := own.Verify(roots, identity.KindDevice)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	uid, err := identity.ParseUID(peer.Name.ID)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return &Self{Name: peer.Name, UID: uid, SPKI: peer.SPKI, Roots: roots, Cert: own.TLS(), chain: chain}, nil
}

// saveIdentity stores roots and chain. The chain is last: without identity.pem the
// gateway counts as not enrolled, so a power cut in between leaves no half identity.
func (s *store) saveIdentity(chainPEM []byte, roots *identity.Roots) error {
	return credential.Write(s.dir,
		credential.File{Name: rootFile, Data: roots.PEM(), Mode: credential.Private},
		credential.File{Name: identityFile, Data: chainPEM, Mode: credential.Private})
}

// IdentityInfo is what identity show prints (cli §2). Without an identity all
// but Enrolled and ClaimCode is zero.
type IdentityInfo struct {
	UID       string    `json:"uid"`
	Domain    string    `json:"domain"`
	SPKI      string    `json:"spki_sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Enrolled  bool      `json:"enrolled"`
	// Fresh is the key that the gateway has made because another machine uses its identity.
	Fresh *FreshKey `json:"fresh_key,omitempty"`
	// Owner is null, and OwnerError says why, when nobody can be let in.
	Owner      *OwnerStatus `json:"owner"`
	OwnerError string       `json:"owner_error,omitempty"`
	// ClaimCode is what claims a gateway without an identity; empty: the agent has not made one.
	ClaimCode string `json:"claim_code,omitempty"`
}

// ShowIdentity returns the identity in a state directory and writes nothing there.
// It is no error if there is none; a damaged identity is one. What is known of the owner is judged by the system's clock.
func ShowIdentity(dir string) (IdentityInfo, error) {
	self, err := readSelf(dir)
	if errors.Is(err, ErrNotEnrolled) {
		code, err := readClaim(dir)
		if errors.Is(err, fs.ErrNotExist) || identity.FaultOf(err) == identity.FaultBadCode {
			err = nil
		}
		return IdentityInfo{ClaimCode: code.String()}, err
	}
	if err != nil {
		return IdentityInfo{}, fmt.Errorf("show identity in %s: %w", dir, err)
	}
	leaf := self.Cert.Leaf
	info := IdentityInfo{UID: self.UID.String(), Domain: self.Name.Domain, SPKI: self.SPKI.String(),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), Enrolled: true}
	if info.Fresh, err = showFresh(dir, self.UID); err != nil {
		return IdentityInfo{}, fmt.Errorf("show identity in %s: %w", dir, err)
	}
	known, err := openOwner(dir, self)
	if err != nil {
		info.OwnerError = err.Error()
		return info, nil
	}
	info.Owner = ownerStatus(known, self, time.Now())
	return info, nil
}

// Reset removes the identity in a state directory and everything that belongs to
// it, also what is known of its owner: identity.pem first, without which the rest counts for nothing after a power
// cut, then the key. Missing files are no error. The caller makes sure that no agent
// runs there. After an error it can be called again.
func Reset(dir string) error {
	for _, f := range []string{acceptedFile, identityFile, claimFile, freshFile, keyFile, rootFile, credential.RefusedFile, owner.SlotName + ".0", owner.SlotName + ".1",
		stateSlots + ".0", stateSlots + ".1"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reset identity: %w", err)
		}
	}
	return nil
}
