package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/target"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

// A column of the table that a dry run prints.
type column struct {
	title string
	width int
	cell  func(*revocation.Outcome) string
	known func(*target.Target) string // what is known of the cell before it is written
}

// tableColumns are the columns of the table. Those about certificates are there
// only if one is known.
func (r *report) tableColumns() []column {
	of := func(text func(*target.Certificate) string) func(*target.Target) string {
		return func(t *target.Target) string {
			if t.Cert == nil {
				return ""
			}
			return text(t.Cert)
		}
	}
	columns := []column{
		{title: "SERIAL NUMBER", known: func(t *target.Target) string { return t.Serial.String() }},
		{title: "STATUS", width: len(revocation.AlreadyRevoked), cell: func(o *revocation.Outcome) string { return string(o.Status) }},
		{title: "REASON", cell: func(o *revocation.Outcome) string {
			if o.Reason == nil {
				return ""
			}
			return o.Reason.String()
		}},
		{title: "SUBJECT", known: of(func(c *target.Certificate) string { return c.Subject })},
	}
	if slices.ContainsFunc(r.list.All, func(t target.Target) bool { return t.Cert != nil }) {
		columns = append(columns,
			column{title: "NAMES", known: of(namesOf)},
			column{title: "PROVISIONER", known: of(func(c *target.Certificate) string { return c.Provisioner })},
			column{title: "EXPIRES", known: of(expiryOf)})
	}
	return append(columns, column{title: "AUTHORIZED BY", cell: func(o *revocation.Outcome) string { return o.AuthorizedBy }})
}

// writeRow writes a row of the table, and before the first one the table's head.
func (r *report) writeRow(o *revocation.Outcome) error {
	r.setReason(o)
	head := r.columns == nil
	if head {
		r.columns = r.tableColumns()
	}
	var titles, cells []string
	for i := range r.columns {
		c := &r.columns[i]
		cell := ""
		if c.cell != nil {
			cell = c.cell(o)
		} else {
			cell = c.known(o.Target)
		}
		titles, cells = append(titles, c.title), append(cells, ui.Printable(cell))
		if head {
			c.fit(r.list, cells[i])
		}
	}
	if head {
		width := ui.Columns()
		r.upright = 0 < width && width < r.tableWidth()
	}
	switch {
	case r.upright:
		return ui.Print(r.lines(cells))
	case head:
		return ui.Print(r.row(titles) + r.row(cells))
	}
	return ui.Print(r.row(cells))
}

// tableWidth is how wide the first row is.
func (r *report) tableWidth() int {
	width := -len("  ")
	for _, c := range r.columns {
		width += c.width + len("  ")
	}
	return width
}

// lines writes a row as lines, for a terminal on which it would be wrapped.
func (r *report) lines(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		if cell != "" {
			fmt.Fprintf(&b, "%-13s  %s\n", r.columns[i].title, cell)
		}
	}
	return b.String() + "\n"
}

// fit makes a column as wide as what is known before the first row is written: the
// table is not held back until all of it is known.
func (c *column) fit(list *target.List, first string) {
	c.width = max(c.width, len(c.title), utf8.RuneCountInString(first))
	for i := range list.All {
		if c.known != nil {
			c.width = max(c.width, utf8.RuneCountInString(ui.Printable(c.known(&list.All[i]))))
		}
	}
}

func (r *report) row(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		fmt.Fprintf(&b, "%-*s  ", r.columns[i].width, cmp.Or(cell, "-"))
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}
