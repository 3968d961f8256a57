// picture TITLE DESCRIPTION turns what `tmux capture-pane -e -p` has printed into an
// SVG. Long lines are broken between words, which a terminal does not do.
package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: picture TITLE DESCRIPTION <SCREEN >SVG")
		os.Exit(2)
	}
	screen, err := io.ReadAll(os.Stdin)
	if err == nil {
		var svg []byte
		if svg, err = draw(string(screen), os.Args[1], os.Args[2]); err == nil {
			_, err = os.Stdout.Write(svg)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

const columns = 88

// Sizes in pixels. Fonts differ in their width: textLength makes every character as
// wide as a cell.
const (
	cellWidth, cellHeight = 8.5, 20
	fontSize              = 14
	side, bar, bottom     = 22, 46, 14 // around the text; the bar is that of the window
)

// colors are those of SGR 30 to 37, readable on the background.
var colors = [8]string{"#6e7681", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4"}

// A style is how a character looks.
type style struct {
	color string // or empty
	bold  bool
}

type cell struct {
	char rune
	style
}

func draw(screen, title, description string) ([]byte, error) {
	lines, err := read(screen)
	if err != nil {
		return nil, err
	}
	var rows [][]cell
	for _, line := range lines {
		rows = append(rows, wrap(line)...)
	}
	var b bytes.Buffer
	width, height := int(columns*cellWidth)+2*side, len(rows)*cellHeight+bar+bottom
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">
<title id="title">%s</title>
<desc id="desc">%s</desc>
<rect x=".5" y=".5" width="%d" height="%d" rx="10" fill="#0d1117" stroke="#3d444d"/>
<g fill="#3d444d"><circle cx="28" cy="22" r="6"/><circle cx="48" cy="22" r="6"/><circle cx="68" cy="22" r="6"/></g>
<g fill="#e6edf3" font-size="%d" font-family="ui-monospace, SFMono-Regular, 'SF Mono', Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace">
`, width, height, width, height, escape(title), escape(description), width-1, height-1, fontSize)
	for i, row := range rows {
		for from := 0; from < len(row); {
			to := from + 1
			for to < len(row) && row[to].style == row[from].style && (row[to].char != ' ' || row[to-1].char != ' ') {
				to++
			}
			writeRun(&b, i, from, row[from:to])
			from = to
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes(), nil
}

// writeRun writes characters of the same style, without the spaces around them. Two
// spaces in a row end a run: SVG would make them one.
func writeRun(b *bytes.Buffer, row, column int, run []cell) {
	var text strings.Builder
	for _, c := range run {
		text.WriteRune(c.char)
	}
	bare := strings.TrimLeft(text.String(), " ")
	column += text.Len() - len(bare)
	bare = strings.TrimRight(bare, " ")
	if bare == "" {
		return
	}
	fmt.Fprintf(b, `<text x="%s" y="%d"`, number(side+float64(column)*cellWidth), bar+row*cellHeight+fontSize)
	if n := len([]rune(bare)); n > 1 {
		fmt.Fprintf(b, ` textLength="%s"`, number(float64(n)*cellWidth))
	}
	if run[0].color != "" {
		fmt.Fprintf(b, ` fill="%s"`, run[0].color)
	}
	if run[0].bold {
		b.WriteString(` font-weight="bold"`)
	}
	fmt.Fprintf(b, ">%s</text>\n", escape(bare))
}

// read takes a screen apart, without the empty lines at its end. A style goes on in
// the next line.
func read(screen string) (lines [][]cell, err error) {
	var now style
	for line := range strings.Lines(strings.TrimRight(screen, "\n")) {
		line = strings.TrimSuffix(line, "\n")
		var cells []cell
		for line != "" {
			text, rest, escaped := strings.Cut(line, "\x1b")
			for _, r := range text {
				cells = append(cells, cell{r, now})
			}
			if line = rest; !escaped {
				break
			}
			parameters, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "m")
			if !ok || !strings.HasPrefix(line, "[") {
				return nil, fmt.Errorf("an escape sequence that is not SGR: %q", line)
			}
			for parameter := range strings.SplitSeq(parameters, ";") {
				if err := now.set(parameter); err != nil {
					return nil, err
				}
			}
			line = rest
		}
		lines = append(lines, cells)
	}
	return lines, nil
}

// set takes over a parameter of SGR (ECMA-48).
func (s *style) set(parameter string) error {
	n, err := strconv.Atoi(cmp.Or(parameter, "0"))
	switch {
	case err != nil:
		return err
	case n == 0:
		*s = style{}
	case n == 1:
		s.bold = true
	case n == 22:
		s.bold = false
	case n >= 30 && n <= 37:
		s.color = colors[n-30]
	case n == 39:
		s.color = ""
	case n == 49: // the background is never another one
	default:
		return fmt.Errorf("no picture is made of SGR %d", n)
	}
	return nil
}

// wrap breaks a line between words. What follows is indented by two more columns.
func wrap(line []cell) (rows [][]cell) {
	indent := 0
	for indent < len(line) && line[indent].char == ' ' {
		indent++
	}
	for len(line) > columns {
		at := columns
		for at > indent && line[at].char != ' ' {
			at--
		}
		if at == indent {
			break
		}
		rows = append(rows, line[:at])
		if len(rows) == 1 {
			indent += 2
		}
		rest := make([]cell, indent, indent+len(line)-at)
		for i := range rest {
			rest[i].char = ' '
		}
		line = append(rest, line[at+1:]...)
	}
	return append(rows, line)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 32) }
