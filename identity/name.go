package identity

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what a certificate's holder is (identity §1). It is also a part of the name.
type Kind string

// The kinds of identity §1.
const (
	KindDevice Kind = "device"
	KindUser   Kind = "user"
	KindRelay  Kind = "relay"
	KindAccess Kind = "access"
)

// Name is who the holder of a certificate is (identity §1). It is comparable. A Name made by hand may be none; one from
// [ParseName] or [Verify] always is. Labels are a subset of what DNS allows, in lower case only: two spellings of one
// name would be two keys in a map.
type Name struct {
	Kind   Kind
	Domain string // a label; empty for relays and access servers
	ID     string // a UID for devices, a label for the others
}

// DeviceName names a device of a domain.
func DeviceName(domain string, uid UID) Name { return Name{KindDevice, domain, uid.String()} }

// UserName names a person of a domain.
func UserName(domain, user string) Name { return Name{KindUser, domain, user} }

// RelayName names a Relay Server.
func RelayName(name string) Name { return Name{KindRelay, "", name} }

// AccessName names an Access Server.
func AccessName(name string) Name { return Name{KindAccess, "", name} }

const (
	nameScheme = "hawser://"
	maxNameLen = 160 // bytes; the longest name is 9 + 63 + 6 + 63
)

// ParseName reads the one spelling of a name. The fault is [FaultBadName].
func ParseName(uri string) (Name, error) {
	rest, ok := strings.CutPrefix(uri, nameScheme)
	parts := strings.Split(rest, "/")
	if !ok || len(uri) > maxNameLen || len(parts) != 3 {
		return Name{}, refuse(FaultBadName, "parse name: not hawser://DOMAIN/KIND/ID")
	}
	n := Name{Kind: Kind(parts[1]), Domain: parts[0], ID: parts[2]}
	if err := n.check(); err != nil {
		return Name{}, err
	}
	return n, nil
}

// String returns the URI that certificates carry.
func (n Name) String() string {
	return nameScheme + n.Domain + "/" + string(n.Kind) + "/" + n.ID
}

// check tells whether n is a name. Its parts then hold no '/', so String and ParseName are inverses.
func (n Name) check() error {
	var err error
	switch n.Kind {
	case KindDevice:
		_, err = ParseUID(n.ID)
	case KindUser, KindRelay, KindAccess:
		err = CheckLabel(n.ID)
	default:
		return refuse(FaultBadName, "parse name: unknown kind")
	}
	if err != nil {
		return err
	}
	if n.Kind == KindDevice || n.Kind == KindUser {
		return CheckLabel(n.Domain)
	}
	if n.Domain != "" {
		return refuse(FaultBadName, "parse name: relays and access servers have no domain")
	}
	return nil
}

const maxLabelLen = 63 // bytes, as in DNS (RFC 1035 §2.3.4)

// CheckLabel tells whether s may name a domain, user, relay or access server (identity §1). The fault is
// [FaultBadName].
func CheckLabel(s string) error {
	if s == "" || len(s) > maxLabelLen {
		return refuse(FaultBadName, "check label: not 1 to 63 characters")
	}
	if s[0] == '-' || s[len(s)-1] == '-' {
		return refuse(FaultBadName, "check label: begins or ends with a hyphen")
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return refuse(FaultBadName, "check label: only a-z, 0-9 and hyphen are allowed")
		}
	}
	return nil
}

const maxDisplayNameLen = 64 // characters, identity §1

// CheckDisplayName tells whether s may be a device's display name (identity §1). The fault is [FaultBadName].
// It goes to terminals, tables, spreadsheets and command lines, so that it is letters, digits and a few harmless signs.
func CheckDisplayName(s string) error {
	if s == "" || utf8.RuneCountInString(s) > maxDisplayNameLen {
		return refuse(FaultBadName, "check display name: not 1 to 64 characters")
	}
	for _, r := range s { // a broken encoding yields U+FFFD, which is no letter
		if !IsDisplayLetter(r) && !strings.ContainsRune(" ._-,", r) {
			return refuse(FaultBadName, "check display name: only letters, digits, space and . _ - , are allowed")
		}
	}
	// A spreadsheet reads a first '-' as a formula, a command line as a flag.
	if first, _ := utf8.DecodeRuneInString(s); !IsDisplayLetter(first) || strings.HasSuffix(s, " ") {
		return refuse(FaultBadName, "check display name: must begin with a letter or digit and not end with a space")
	}
	return nil
}

// IsDisplayLetter allows left-to-right scripts only: letters of the others reorder what stands beside them.
// Some fillers count as letters but are invisible.
func IsDisplayLetter(r rune) bool {
	return '0' <= r && r <= '9' ||
		unicode.IsLetter(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) &&
			unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic,
				unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul)
}
