package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// The part of SPDX 2.3 in which a list of libraries is written. Every program of ours is one Go binary, and what it was
// linked from stands in it: a tool that guesses from lock files would know less.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		Licence       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  time.Time `json:"created"`
		Creators []string  `json:"creators"`
	}
	spdxPackage struct {
		Name      string          `json:"name"`
		ID        string          `json:"SPDXID"`
		Version   string          `json:"versionInfo"`
		Location  string          `json:"downloadLocation"`
		Analyzed  bool            `json:"filesAnalyzed"`
		Checksums []spdxChecksum  `json:"checksums,omitempty"`
		Concluded string          `json:"licenseConcluded"`
		Declared  string          `json:"licenseDeclared"`
		Copyright string          `json:"copyrightText"`
		Refs      []spdxReference `json:"externalRefs,omitempty"`
		Comment   string          `json:"comment,omitempty"`
		Purpose   string          `json:"primaryPackagePurpose,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Kind string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// makeSBOMs describes every program that has gone into a package, each for its platform, and puts beside it the notices
// for which small packages have no room. One for each program and platform, since build tags give each platform other
// libraries.
func (r *release) makeSBOMs() error {
	packs, err := plan(r.only)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, p := range packs {
		name := fmt.Sprintf("%s_%s_%s", p.name, r.version, p.dir)
		if done[name] {
			continue
		}
		done[name] = true
		if err := r.makeSBOM(filepath.Join(r.bin, p.dir, p.name), filepath.Join(r.out, name)); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) makeSBOM(file, made string) error {
	d, err := r.describeProgram(file, filepath.Base(made))
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	notices, err := r.notices(file)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(made+".spdx.json", append(text, '\n'), 0o644), os.WriteFile(made+".third-party.txt", []byte(notices), 0o644))
}

func (r *release) describeProgram(file, name string) (d spdxDocument, err error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return d, err
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return d, fmt.Errorf("read modules of %s: %w", file, err)
	}
	// The program's own hash names the document: no random UUID, so that the same commit makes the same bytes.
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	const root = "SPDXRef-Program"
	d = spdxDocument{
		Version: "SPDX-2.3", Licence: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name, Namespace: "urn:sha256:" + digest,
		Creation:      spdxCreation{r.when, []string{"Tool: hawser-package"}},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", root}},
	}
	own := library(root, filepath.Base(file), r.version.String())
	own.Concluded, own.Declared, own.Purpose = "Apache-2.0", "Apache-2.0", "APPLICATION"
	own.Checksums = []spdxChecksum{{"SHA256", digest}}
	d.Packages = append(d.Packages, own)
	for i, m := range modules(info) {
		id := fmt.Sprintf("SPDXRef-Module-%d", i)
		lib := library(id, m.Path, m.Version)
		lib.Refs = []spdxReference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}}
		if m.Sum != "" {
			lib.Comment = "go.sum: " + m.Sum
		}
		d.Packages = append(d.Packages, lib)
		d.Relationships = append(d.Relationships, spdxRelationship{root, "DEPENDS_ON", id})
	}
	return d, nil
}

func library(id, name, version string) spdxPackage {
	const unknown = "NOASSERTION"
	return spdxPackage{Name: name, ID: id, Version: version, Location: unknown, Concluded: unknown, Declared: unknown, Copyright: unknown}
}

// modules are what a program is linked from, with the standard library first.
func modules(info *debug.BuildInfo) []debug.Module {
	all := []debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, *m)
	}
	return all
}
