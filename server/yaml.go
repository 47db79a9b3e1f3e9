package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// decode reads server.yaml strictly: a key that is not known is an error, since
// it is most likely a known one that is misspelt. The error is a *ConfigError.
func decode(file string, b []byte) (r raw, err error) {
	if len(b) > maxConfigBytes {
		return r, &ConfigError{File: file, Text: fmt.Sprintf("%d bytes, limit %d", len(b), maxConfigBytes)}
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		return r, yamlError(file, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return r, &ConfigError{File: file, Text: "more than one document"}
	}
	return r, nil
}

// yamlError makes one line, with its place, of what the library says in several.
func yamlError(file string, err error) *ConfigError {
	text := err.Error()
	if errors.Is(err, io.EOF) {
		text = "is empty"
	}
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		text = e.Errors[0] // the others are seen when this one is gone
	}
	text = strings.TrimPrefix(text, "yaml: ")
	line := 0
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits: only a line number too large for int fails, and 0 means none
		text = text[len(m[0]):]
	}
	if m := regexp.MustCompile(`^field (.+) not found in type `).FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("unknown key %q", m[1])
	}
	return &ConfigError{File: file, Line: line, Text: oneLine(text)}
}

// oneLine makes a text fit for one line of a terminal, whatever was quoted in it.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// encode writes a configuration for people to go on with.
func encode(r raw) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Hawser server. Relative paths are relative to this file. Roles: which of the sections access and relay are here.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	return b.Bytes(), nil
}
