//go:build linux

package lab

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hawser/identity"
)

// secrets is all that a gateway tells to nobody but its Access Server, by name. The public key stands for a CSR and for a
// certificate, which both hold it.
func (g *gateway) secrets() map[string][]byte {
	g.t.Helper()
	uid, err := hex.DecodeString(g.uid)
	if err != nil {
		g.t.Fatal(err)
	}
	secrets := map[string][]byte{
		"code": []byte(g.code), "code without dashes": []byte(strings.ReplaceAll(g.code, "-", "")),
		"UID": uid, "UID as text": []byte(g.uid), "name": []byte(g.name),
		"public key": g.publicKey(),
	}
	text, err := os.ReadFile(filepath.Join(g.data, "identity.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return secrets
	}
	block, _ := pem.Decode(text)
	if err != nil || block == nil {
		g.t.Fatalf("read identity: %v", err)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		g.t.Fatal(err)
	}
	secrets["certificate"], secrets["certificate's signature"] = leaf.RawTBSCertificate, leaf.Signature
	secrets["certificate as text"] = text[len("-----BEGIN CERTIFICATE-----\n"):][:64]
	return secrets
}

// publicKey is made with the device's own key, which is there from the first try to enroll on.
func (g *gateway) publicKey() []byte {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.data, "device.key"))
	if err != nil {
		g.t.Fatal(err)
	}
	key, err := identity.ParseKey(text)
	if err != nil {
		g.t.Fatal(err)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		g.t.Fatalf("the device's key is a %T", key.Public())
	}
	return public
}
