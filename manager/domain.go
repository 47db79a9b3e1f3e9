package manager

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"
	"filippo.io/age/armor"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
)

const (
	// domainFile is the domain key (identity §12): in PEM, or in that of age, under a passphrase. No server ever has it.
	domainFile = "domain.key"
	// copiedFile has the hash of the domain key of which there is a copy elsewhere.
	copiedFile = "domain.copied"

	ageHeader = "-----BEGIN AGE"
	// minPassphrase is what a person who is not thinking of an attack offline should be held to.
	minPassphrase = 10
)

// Passphrase asks a person for the passphrase of a domain key. fresh: it is a new one, which is asked for twice.
type Passphrase func(fresh bool) (string, error)

// DomainInfo is what hawser domain show says.
type DomainInfo struct {
	Domain  string             `json:"domain"`
	Key     identity.PublicKey `json:"key"`
	SPKI    identity.SPKI      `json:"spki_sha256"`
	Held    bool               `json:"held"`    // the private key is in this home
	Locked  bool               `json:"locked"`  // by a passphrase
	Copied  bool               `json:"copied"`  // there is a copy of it elsewhere: it was exported here, or imported
	List    uint64             `json:"list"`    // serial of the newest list
	Entries int                `json:"entries"` // of all lists
}

// Domain says what is known of the domain and its key. It uses no network.
func (a *Account) Domain() (DomainInfo, error) {
	pinned := a.state.owner.Pinned()
	list, _ := a.state.owner.Serials()
	i := DomainInfo{Domain: pinned.Domain, Key: pinned.Key, SPKI: pinned.Key.SPKI(), List: list, Entries: len(a.state.owner.Lists().Entries())}
	b, err := durable.ReadPrivate(a.home.path(domainFile), credential.MaxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	i.Held, i.Locked = true, bytes.HasPrefix(b, []byte(ageHeader))
	copied, _ := os.ReadFile(a.home.path(copiedFile)) // without it one copy more is made
	i.Copied = string(copied) == i.SPKI.String()
	return i, asUsage(err)
}

// ExportDomain writes a copy of the domain key that only a passphrase opens.
func (a *Account) ExportDomain(file string) error {
	key, err := a.domainKey()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return usage("export domain key: %s is there already", file)
	}
	if a.m.Passphrase == nil {
		return usage("export domain key: a copy has a passphrase, and there is no terminal to ask for one: give --passphrase-file FILE")
	}
	b, err := a.m.seal(key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(file, b, credential.Private); err != nil {
		return asUsage(err)
	}
	return a.home.copied(a.state.owner.Pinned().Key.SPKI())
}

// copied remembers that there is a copy of a domain key.
func (h home) copied(spki identity.SPKI) error {
	return asUsage(durable.WriteFile(h.path(copiedFile), []byte(spki.String()), credential.Private))
}

// remindOfCopy tells a founder to make a copy of his key, until there is one: a disk that dies would take the domain with it.
func (a *Account) remindOfCopy() {
	if i, err := a.Domain(); err == nil && i.Held && !i.Copied {
		a.m.notice("the domain key is on this computer alone: make a copy with hawser domain export FILE, and keep it away from here")
	}
}

// ImportDomain takes the domain key from a copy that ExportDomain made. It may be a home in which nobody has logged in yet:
// then the next login is that of a founder. Another key than the one that is there already is not replaced.
func (m *Manager) ImportDomain(file string) (identity.SPKI, error) {
	h, err := m.home()
	if err != nil {
		return identity.SPKI{}, err
	}
	b, err := durable.ReadPrivate(file, credential.MaxFileBytes)
	if err != nil {
		return identity.SPKI{}, asUsage(err)
	}
	key, err := m.openKey(b)
	if err != nil {
		return identity.SPKI{}, err
	}
	spki, err := identity.SPKIOf(key.Public())
	if err != nil {
		return identity.SPKI{}, asUsage(err)
	}
	if err := h.create(); err != nil {
		return identity.SPKI{}, err
	}
	unlock, err := h.lock()
	if err != nil {
		return identity.SPKI{}, asUsage(err)
	}
	defer unlock.Close()
	if _, err := os.Lstat(h.path(domainFile)); !errors.Is(err, fs.ErrNotExist) {
		return identity.SPKI{}, usage("import domain key: %s is there already; move it away if it is to be replaced", h.path(domainFile))
	}
	if err := durable.WriteFile(h.path(domainFile), b, credential.Private); err != nil {
		return spki, asUsage(err)
	}
	return spki, h.copied(spki)
}

// domainKey is the private domain key, if it is in this home and is the one that is pinned. The fault of a home without it
// is reason policy: what only the domain key may sign is not this user's to say.
func (a *Account) domainKey() (crypto.Signer, error) {
	key, err := a.m.readDomainKey(a.home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(transport.Policy, "sign with the domain key", errors.New("it is not on this computer; ask whoever founded the domain"))
	}
	if err != nil {
		return nil, err
	}
	if pub, err := identity.NewPublicKey(key.Public()); err != nil || pub != a.state.owner.Pinned().Key {
		return nil, usage("sign with the domain key: %s is the key of another domain", a.home.path(domainFile))
	}
	return key, nil
}

func (m *Manager) readDomainKey(h home) (crypto.Signer, error) {
	b, err := durable.ReadPrivate(h.path(domainFile), credential.MaxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, asUsage(err)
	}
	return m.openKey(b)
}

// openKey reads a key with or without a passphrase.
func (m *Manager) openKey(b []byte) (crypto.Signer, error) {
	if bytes.HasPrefix(b, []byte(ageHeader)) {
		if m.Passphrase == nil {
			return nil, usage("open domain key: it has a passphrase, and there is no terminal to ask for it: give --passphrase-file FILE")
		}
		phrase, err := m.Passphrase(false)
		if err != nil {
			return nil, err
		}
		if b, err = unseal(b, phrase); err != nil {
			return nil, usage("open domain key: %w", err)
		}
	}
	key, err := identity.ParseKey(b)
	return key, asUsage(err)
}

// makeDomainKey returns the domain key of a home, and makes it the first time. It is on the disk before anybody is told of
// it. The caller holds the lock.
func (m *Manager) makeDomainKey(h home) (crypto.Signer, error) {
	key, err := m.readDomainKey(h)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if m.Passphrase == nil && !m.NoPassphrase {
		return nil, usage("make domain key: it is kept under a passphrase, and there is no terminal to ask for one: give --passphrase-file FILE or --no-passphrase")
	}
	if key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	if m.NoPassphrase {
		f, err := credential.KeyFile(domainFile, key)
		if err != nil {
			return nil, err
		}
		return key, asUsage(credential.Write(string(h), f))
	}
	b, err := m.seal(key)
	if err != nil {
		return nil, err
	}
	return key, asUsage(durable.WriteFile(h.path(domainFile), b, credential.Private))
}

// seal encrypts a key under a new passphrase.
func (m *Manager) seal(key crypto.Signer) ([]byte, error) {
	phrase, err := m.Passphrase(true)
	if err != nil {
		return nil, err
	}
	if len([]rune(phrase)) < minPassphrase {
		return nil, usage("passphrase: want %d characters at least", minPassphrase)
	}
	pem, err := identity.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	to, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return nil, usage("passphrase: %w", err)
	}
	if m.work != 0 {
		to.SetWorkFactor(m.work)
	}
	var b bytes.Buffer
	text := armor.NewWriter(&b)
	w, err := age.Encrypt(text, to)
	if err == nil {
		_, err = w.Write(pem)
		err = errors.Join(err, w.Close(), text.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt domain key: %w", err)
	}
	return b.Bytes(), nil
}

func unseal(b []byte, phrase string) ([]byte, error) {
	by, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(b)), by)
	if err != nil {
		return nil, errors.New("the passphrase is wrong, or the file is damaged")
	}
	return io.ReadAll(io.LimitReader(r, credential.MaxFileBytes))
}
