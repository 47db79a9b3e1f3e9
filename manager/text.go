package manager

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean returns s with every character replaced by '?' that is not on the list of what may reach a terminal: printable
// ASCII, and the letters that display names may have (identity §1). So no escape, control, C1, bidi or combining character
// and no line end gets through, whoever said it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if isPrintable(r) {
			return r
		}
		return '?'
	}, s)
}

func isPrintable(r rune) bool {
	if r <= unicode.MaxASCII {
		return ' ' <= r && r <= '~'
	}
	return r != utf8.RuneError && unicode.IsLetter(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) &&
		unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic,
			unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul)
}

// cells is how many columns of a terminal a clean string takes: letters of East Asian scripts take two (UAX 11), but for
// the half-width forms.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) && (r < 0xff61 || r > 0xffdc) {
			n++
		}
	}
	return n
}

// cut is clean for a text of which nobody vouches even for the length.
func cut(s string, maxRunes int) string {
	s = clean(s)
	for i := range s {
		if maxRunes--; maxRunes < 0 {
			return s[:i] + "..."
		}
	}
	return s
}

// isWord reports whether s has the form of a reason or code: lower-case words joined by dashes.
func isWord(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}
