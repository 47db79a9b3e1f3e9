package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
)

const (
	// A stranger sends chains: both limits are checked before a certificate is parsed.
	pemCert       = "CERTIFICATE" // RFC 7468 §5
	maxChainBytes = 64 << 10      // identity §4
	maxChainCerts = 8             // identity §4, §5
)

// MarshalChain returns certificates as PEM: the identity file, when they are a leaf and its issuing chain.
func MarshalChain(chain []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, cert := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: cert.Raw}))
	}
	return b.Bytes()
}

// ParseChain reads 1 to 8 certificates in PEM, at most 64 KiB, and verifies nothing about them (identity §4). The
// fault is [FaultMalformed].
func ParseChain(b []byte) ([]*x509.Certificate, error) {
	blocks, err := parsePEM(b, pemCert, maxChainBytes, maxChainCerts)
	if err != nil {
		return nil, err
	}
	chain := make([]*x509.Certificate, len(blocks))
	for i, der := range blocks {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, refuse(FaultMalformed, "parse chain: not an X.509 certificate")
		}
	}
	return chain, nil
}

// parsePEM reads 1 to max blocks of one type and nothing else (identity §2). The PEM decoder skips whatever it
// does not understand; printing the blocks again and comparing shows that it skipped nothing.
func parsePEM(b []byte, blockType string, maxBytes, maxBlocks int) ([][]byte, error) {
	if len(b) > maxBytes {
		return nil, refuse(FaultMalformed, "parse PEM: too long")
	}
	text := normalLines(b)
	var blocks [][]byte
	var again bytes.Buffer
	for rest := text; len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if len(blocks) == maxBlocks {
			return nil, refuse(FaultMalformed, "parse PEM: too many blocks")
		}
		blocks = append(blocks, block.Bytes)
		again.Write(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: block.Bytes}))
	}
	if len(blocks) == 0 || !bytes.Equal(again.Bytes(), text) {
		return nil, refuse(FaultMalformed, "parse PEM: not only "+blockType+" blocks")
	}
	return blocks, nil
}

// normalLines drops blank lines and the space at either end of a line, such as a CR. Files are copied through Windows
// editors and mails.
func normalLines(b []byte) []byte {
	out := make([]byte, 0, len(b)+1)
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(append(out, line...), '\n')
		}
	}
	return out
}
