package transport

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// From RFC 1928 and RFC 1929.
const (
	socksVersion = 5

	socksNone     = 0x00 // methods, RFC 1928 §3
	socksGSSAPI   = 0x01
	socksPassword = 0x02
	socksNothing  = 0xff

	socksConnect = 1 // command, RFC 1928 §4

	socksIPv4 = 1 // kinds of address, RFC 1928 §5
	socksName = 3
	socksIPv6 = 4

	passwordVersion = 1 // RFC 1929 §2
)

// askSOCKS asks a SOCKS5 proxy to connect. Each message is read to its last byte and
// no further: what follows is the server's. By hand (docs/decisions/0015): three small messages, whose answers have to
// become reasons of wire §7.
func askSOCKS(conn io.ReadWriter, l *login, host string, port Port) error {
	// Made before anything is sent: a host that does not fit in is no fault of the proxy.
	request, err := socksRequest(host, port)
	if err != nil {
		return err
	}
	if _, err := conn.Write(socksGreeting(l)); err != nil {
		return err
	}
	method, err := readMethod(conn)
	if err != nil {
		return err
	}
	if err := proveSOCKS(conn, method, l); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	return readSOCKSReply(conn)
}

// socksGreeting lists the methods that we have. Without a name and password there is
// one. Both methods with a password, since a proxy may let this device through without asking for it.
func socksGreeting(l *login) []byte {
	if l == nil {
		return []byte{socksVersion, 1, socksNone}
	}
	return []byte{socksVersion, 2, socksNone, socksPassword}
}

// readMethod reads the method that the proxy has chosen (RFC 1928 §3).
func readMethod(r io.Reader) (byte, error) {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	if b[0] != socksVersion {
		return 0, errNoSOCKS()
	}
	return b[1], nil
}

func errNoSOCKS() error {
	return &Error{Reason: NotTLS, Err: errors.New("what answers is no SOCKS5 proxy")}
}

// proveSOCKS does what the method asks for.
func proveSOCKS(conn io.ReadWriter, method byte, l *login) error {
	auth := func(text string) error { return &Error{Reason: ProxyAuth, Err: errors.New(text)} }
	switch {
	case method == socksNone:
		return nil
	case method == socksGSSAPI:
		return auth("it wants GSSAPI, which is not supported: let it take a name and password")
	case method == socksNothing && l == nil:
		return auth("it wants a name and password")
	case method == socksNothing:
		return auth("it takes neither a name and password nor nobody's")
	case method != socksPassword || l == nil:
		return errNoSOCKS() // a method that was not offered
	}
	// ParseProxy has bounded both to 255 bytes: their lengths fit into a byte each.
	b := append([]byte{passwordVersion, byte(len(l.user))}, l.user...)
	b = append(append(b, byte(len(l.password))), l.password...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[1] != 0 {
		return auth("it does not take this name and password")
	}
	return nil
}

// socksRequest is the request of RFC 1928 §4. A name is sent as a name: inside the site it may not resolve at all, or
// to another address.
func socksRequest(host string, port Port) ([]byte, error) {
	b := []byte{socksVersion, socksConnect, 0}
	// The final dot is DNS's and not SOCKS's.
	host = strings.TrimSuffix(host, ".")
	if a, err := netip.ParseAddr(host); err == nil {
		kind := byte(socksIPv6)
		if a = a.Unmap(); a.Is4() {
			kind = socksIPv4
		}
		b = append(append(b, kind), a.AsSlice()...)
	} else if len(host) == 0 || len(host) > maxName {
		return nil, fmt.Errorf("host name of %d bytes", len(host))
	} else {
		b = append(append(b, socksName, byte(len(host))), host...)
	}
	return append(b, byte(port>>8), byte(port)), nil
}

// readSOCKSReply reads the reply of RFC 1928 §6. The address in it is of no use.
func readSOCKSReply(r io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if head[0] != socksVersion {
		return errNoSOCKS()
	}
	if head[1] != 0 { // some proxies send no address then
		return &Error{Reason: ProxyRefused, Err: errors.New(socksText(head[1]))}
	}
	var rest int
	switch head[3] {
	case socksIPv4:
		rest = 4
	case socksIPv6:
		rest = 16
	case socksName:
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return err
		}
		rest = int(n[0])
	default:
		return errNoSOCKS()
	}
	// The address is read, to the byte: what is left of it would be taken for the server's first record.
	_, err := io.ReadFull(r, make([]byte, rest+2))
	return err
}

// socksText names a reply code (RFC 1928 §6).
func socksText(code byte) string {
	texts := []string{1: "it failed", 2: "its rules do not allow it", 3: "the network is unreachable", 4: "the host is unreachable",
		5: "the connection was refused", 6: "the time to live is over", 7: "it does not connect", 8: "it does not take this kind of address"}
	if int(code) < len(texts) {
		return "it says: " + texts[code]
	}
	return fmt.Sprintf("it says: error %d", code)
}
