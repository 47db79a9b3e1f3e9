package main

import (
	"fmt"
	"strings"
	"time"
)

// manualPage makes a man page (man(7)) of what the program says of itself with --help, each of its commands included, so
// that the two never differ.
func manualPage(file string, p program, when time.Time, v version) (string, error) {
	var page strings.Builder
	fmt.Fprintf(&page, ".TH %s %d %s \"%s %s\" \"Hawser\"\n", strings.ToUpper(p.name), p.manual, when.Format("2006-01-02"), p.name, v)
	fmt.Fprintf(&page, ".SH NAME\n%s \\- %s\n.SH DESCRIPTION\n%s\n.SH COMMANDS\n", roff(p.name), roff(p.summary), roff(p.text))
	if err := manualOf(&page, file, []string{p.name}, 0); err != nil {
		return "", err
	}
	return page.String(), nil
}

// manualOf adds a command and those below it.
func manualOf(page *strings.Builder, file string, words []string, depth int) error {
	help, err := output(file, append(words[1:len(words):len(words)], "--help")...)
	if err != nil {
		return err
	}
	fmt.Fprintf(page, ".SS %s\n.nf\n%s\n.fi\n", roff(strings.Join(words, " ")), roff(strings.TrimSpace(help)))
	if depth == 3 {
		return fmt.Errorf("commands of %s are nested too deeply", words[0])
	}
	for _, name := range commandsIn(help) {
		if err := manualOf(page, file, append(words[:len(words):len(words)], name), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// commandsIn reads the names below "Available Commands:", without those that every program has.
func commandsIn(help string) (names []string) {
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for l := range strings.Lines(list) {
		if f := strings.Fields(l); len(f) > 0 && f[0] != "help" && f[0] != "completion" {
			names = append(names, f[0])
		}
	}
	return names
}

// roff keeps text from being commands.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
