package probe

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Text is the sheet as plain text, in printable ASCII and line ends.
func (s *Sheet) Text() []byte {
	var b strings.Builder
	title := harmless(s.title())
	fmt.Fprintf(&b, "%s\n%s\n", title, strings.Repeat("=", len(title)))
	for _, p := range s.parts() {
		fmt.Fprintf(&b, "\n%s\n%s\n", p.title, strings.Repeat("-", len(p.title)))
		for _, l := range p.lines {
			fmt.Fprintf(&b, "* %s\n", harmless(l))
		}
		if len(p.table) > 0 {
			tabulate(&b, p.table)
		}
	}
	return []byte(b.String())
}

func tabulate(b *strings.Builder, table [][]string) {
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range table {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, harmless(cell))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush() // a Builder does not fail
}

// The page loads nothing and runs nothing, whatever got into it.
const (
	pageHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>%s</title>
<style>
body { font: 15px/1.4 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%%; }
th, td { border: 1px solid #999; padding: .25em .5em; text-align: left; vertical-align: top; }
@media print { body { margin: 0; font-size: 11px; } }
</style>
</head>
<body>
<h1>%[1]s</h1>
`
	pageEnd = "</body>\n</html>\n"
)

// HTML is the sheet as a page of one file.
func (s *Sheet) HTML() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, inert(s.title()))
	for _, p := range s.parts() {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", inert(p.title))
		if len(p.lines) > 0 {
			b.WriteString("<ul>\n")
			for _, l := range p.lines {
				fmt.Fprintf(&b, "<li>%s</li>\n", inert(l))
			}
			b.WriteString("</ul>\n")
		}
		htmlTable(&b, p.table)
	}
	b.WriteString(pageEnd)
	return []byte(b.String())
}

func htmlTable(b *strings.Builder, table [][]string) {
	if len(table) == 0 {
		return
	}
	b.WriteString("<table>\n")
	for i, row := range table {
		tag := "td"
		if i == 0 {
			tag = "th"
		}
		b.WriteString("<tr>")
		for _, cell := range row {
			fmt.Fprintf(b, "<%[1]s>%[2]s</%[1]s>", tag, inert(cell))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table>\n")
}

// inert makes any text mere text of an HTML element: nothing in the page stands
// in an attribute or a script. The package html would bring a table of all named
// characters (100 KiB), and html/template more: the agent has to stay small.
func inert(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(harmless(s))
}
