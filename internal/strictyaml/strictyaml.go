// Package strictyaml reads a configuration file into a struct and keeps, for each key, the line on which it stands, so that
// every error names file, line and key: FILE:LINE: KEY: what is wrong.
//
// It is strict, because with a typing error in a key its default would apply without anybody noticing: a key that the
// struct has no field for is an error, and so are a key that stands twice, an empty value, an anchor or alias (a small
// file could expand to a huge one) and a second document. Values are taken as they are written, never guessed: yes is no
// bool, and 0x50 no number.
//
//	var raw struct {
//		Access []string `yaml:"access"`
//	}
//	doc, err := strictyaml.Decode(b, &raw)
//	for i, host := range raw.Access {
//		if err := check(host); err != nil {
//			return doc.Locate(file, strictyaml.AtItem("access", i, err))
//		}
//	}
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// MaxBytes bounds a configuration file. Real ones have some hundred bytes; the library needs many times the size of
// what it parses.
const MaxBytes = 64 << 10

// Later is the type of a field whose key the format reserves: to give it is an error that says so.
type Later struct{}

// OneOrMore is a list that is also written as one value without brackets. Nil: the file
// does not have it.
type OneOrMore []string

// An Error is what is wrong with a configuration, and where. Its text is one line.
type Error struct {
	File string // empty: not in a file
	Line int    // 0: not on one line
	Key  string // with its sections, joined by dots; empty: of no key
	Err  error

	item int // of the list, from 1; 0: the whole value
}

// Error is FILE:LINE: KEY: what is wrong.
func (e *Error) Error() string {
	where := e.File
	if where != "" && e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	text := strings.Join(strings.Fields(e.Err.Error()), " ")
	for _, part := range []string{e.Key, where} {
		if part != "" {
			text = part + ": " + text
		}
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// At says that err, which is not nil, is of the value of a key; around an error of At it names the section.
func At(key string, err error) error {
	if inner, ok := errors.AsType[*Error](err); ok && inner.Key != "" {
		return &Error{Key: key + "." + inner.Key, Err: inner.Err, item: inner.item}
	}
	return &Error{Key: key, Err: err}
}

// AtItem says that err is of one item of a list, counted from 0.
func AtItem(key string, item int, err error) error { return &Error{Key: key, Err: err, item: item + 1} }

// Doc knows where the keys of a file stand.
type Doc struct {
	Empty bool // there is nothing in it but comments
	lines map[place]int
}

type place struct {
	key  string
	item int
}

// Locate completes an error of At or AtItem, or makes one of any other error, for the file that was read. An error of a
// key that is missing has the line of its section.
func (d *Doc) Locate(file string, err error) error {
	e := Error{Err: err}
	if inner, ok := errors.AsType[*Error](err); ok {
		e = *inner
	}
	e.File = file
	// From the item to its list to its section: the nearest line that is known is better than none.
	for p := (place{e.Key, e.item}); e.Line == 0 && p.key != ""; {
		e.Line = d.lines[p]
		if p.item > 0 {
			p.item = 0
		} else {
			p.key = p.key[:max(strings.LastIndexByte(p.key, '.'), 0)]
		}
	}
	return &e
}

// Decode fills into, a pointer to a struct whose fields are strings, numbers, time.Durations, slices, structs and
// pointers to structs, with their keys in yaml tags. A struct that is also written as one value has that in the field whose
// tag ends with ",plain"; in a list of structs the number of the item, from 1, is a part of the key. What the file does not name stays as it is; a pointer that is not
// nil, and a slice that is not nil, was named. Errors are not yet located: Locate puts the file in front. It goes over
// the nodes by itself, since the library loses the line of every value that parses and is wrong all the same.
func Decode(b []byte, into any) (*Doc, error) {
	d := &Doc{lines: map[place]int{}}
	if len(b) > MaxBytes {
		return d, &Error{Err: fmt.Errorf("over %d KiB", MaxBytes>>10)}
	}
	root, err := parse(b)
	if err != nil || root == nil {
		d.Empty = err == nil
		return d, err
	}
	if err := refuseAliases(root); err != nil {
		return d, err
	}
	return d, d.set(reflect.ValueOf(into).Elem(), root, "")
}

// parse returns the one document, or nil when there is none: the library would ignore what follows a second ---.
func parse(b []byte) (*yaml.Node, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(b))
	err := dec.Decode(&doc)
	if err == io.EOF {
		return nil, nil
	}
	if err != nil {
		return nil, syntaxError(err)
	}
	if dec.Decode(new(yaml.Node)) != io.EOF {
		return nil, &Error{Err: errors.New("more than one document")}
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

// syntaxError takes the line out of the library's text, which is the only place where it is.
func syntaxError(err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := regexp.MustCompile(`^line (\d{1,6}): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return &Error{Line: line, Err: errors.New("no YAML: " + text)}
}

func refuseAliases(n *yaml.Node) error {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		return &Error{Line: n.Line, Err: errors.New("anchors and aliases are not supported")}
	}
	for _, c := range n.Content {
		if err := refuseAliases(c); err != nil {
			return err
		}
	}
	return nil
}

// set gives v the value of a node. The key is empty at the top.
func (d *Doc) set(v reflect.Value, n *yaml.Node, key string) error {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.set(v.Elem(), n, key)
	case reflect.Struct:
		if f := plainOf(v); f.IsValid() && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			return d.set(f, n, key)
		}
		return d.section(v, n, key)
	case reflect.Slice:
		return d.list(v, n, key)
	}
	if n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null" || n.Tag == "!!binary" {
		return &Error{Line: n.Line, Key: key, Err: errors.New("want one value")}
	}
	if err := setScalar(v, n.Value); err != nil {
		return &Error{Line: n.Line, Key: key, Err: err}
	}
	return nil
}

// section stops at the first key that is wrong, and says which there are: a configuration that is half understood could
// let in whom its owner did not mean.
func (d *Doc) section(v reflect.Value, n *yaml.Node, key string) error {
	switch {
	case v.Type() == reflect.TypeFor[Later]():
		return &Error{Line: n.Line, Err: fmt.Errorf("key %q is not supported by this version", key)}
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	case n.Kind != yaml.MappingNode:
		return &Error{Line: n.Line, Key: key, Err: errors.New("want KEY: VALUE lines")}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		name := k.Value
		if key != "" {
			name = key + "." + name
		}
		field, known := fieldOf(v, k.Value)
		switch {
		case k.Kind != yaml.ScalarNode || !field.IsValid():
			return &Error{Line: k.Line, Err: fmt.Errorf("unknown key %.64q (known: %s)", name, strings.Join(known, ", "))}
		case d.lines[place{name, 0}] > 0:
			return &Error{Line: k.Line, Err: fmt.Errorf("key %q stands twice", name)}
		}
		d.lines[place{name, 0}] = k.Line
		if err := d.set(field, value, name); err != nil {
			return err
		}
	}
	return nil
}

// plainOf is the field of a section that is also written as one value, `yaml:"to,plain"`, if it has one.
func plainOf(v reflect.Value) reflect.Value {
	for i := range v.NumField() {
		if strings.HasSuffix(v.Type().Field(i).Tag.Get("yaml"), ",plain") {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// fieldOf finds the field of a key, and lists the keys that there are.
func fieldOf(v reflect.Value, key string) (field reflect.Value, known []string) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == key && name != "" {
			field = v.Field(i)
		}
		if v.Type().Field(i).Type != reflect.TypeFor[Later]() {
			known = append(known, name)
		}
	}
	return field, known
}

func (d *Doc) list(v reflect.Value, n *yaml.Node, key string) error {
	if v.Type() == reflect.TypeFor[OneOrMore]() && n.Kind == yaml.ScalarNode {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return d.set(v.Index(0), n, key)
	}
	if n.Kind != yaml.SequenceNode {
		return &Error{Line: n.Line, Key: key, Err: errors.New("want a list")}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	of := key
	for i, item := range n.Content {
		d.lines[place{key, i + 1}] = item.Line
		if v.Type().Elem().Kind() == reflect.Struct { // its keys are this item's: allow.2.users
			of = key + "." + strconv.Itoa(i+1)
			d.lines[place{of, 0}] = item.Line
		}
		if err := d.set(v.Index(i), item, of); err != nil {
			return err
		}
	}
	return nil
}

// setScalar reads a value that is not empty.
func setScalar(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%.64q: want true or false", text)
		}
		v.SetBool(text == "true")
		return nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%.64q: want a number, at most %d", text, uint64(1)<<v.Type().Bits()-1)
		}
		v.SetUint(n)
		return nil
	case reflect.Int64, reflect.Int:
		if v.Type() == reflect.TypeFor[time.Duration]() {
			t, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("%.64q: want a time with its unit, such as 30s", text)
			}
			v.SetInt(int64(t))
			return nil
		}
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%.64q: want a number", text)
		}
		v.SetInt(n)
		return nil
	}
	panic("strictyaml: cannot read a " + v.Type().String()) // of the program's own struct
}
