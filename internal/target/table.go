package target

import "strings"

// columnNames are the names of the column with the serial numbers of a CSV file, in
// any case.
const columnNames = "serial, serial_number or serialNumber"

// separators of the fields of a row. Where a comma is part of numbers, spreadsheets
// write semicolons.
const separators = ",;"

// A table is a CSV file (RFC 4180), in which each row is one line.
type table struct {
	separator byte
	columns   int
	serial    int      // which column has the serial numbers
	row       []string // the last row, to be used again
}

// beginTable tells whether a line is the header of a CSV file, with one column of
// serial numbers.
func (r *reader) beginTable(line string) bool {
	for i := range separators {
		t := table{separator: separators[i]}
		names, ok := t.split(line)
		if !ok {
			continue
		}
		found := 0
		for column, name := range names {
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "serial", "serial_number", "serialnumber":
				t.serial, found = column, found+1
			}
		}
		if found == 1 {
			t.columns = len(names)
			r.table, r.state = t, inTable
			r.noteNumber()
			return true
		}
	}
	return false
}

// takeRow takes a row of a CSV file. Nothing in it is a comment, unless the serial
// numbers are all that is in the file: a row that is passed over by mistake would be
// a certificate that is not revoked.
func (r *reader) takeRow(line string) error {
	if r.table.columns == 1 {
		line = withoutComment([]byte(line))
	}
	if line == "" {
		return nil
	}
	row, ok := r.table.split(line)
	switch {
	case !ok:
		r.wrong(r.errorAt(r.line, " is not a row of CSV").Hint("quotation marks enclose a whole field, and a row is one line"))
	case len(row) != r.table.columns:
		r.wrong(r.errorAt(r.line, " has %s, and the header has %d", count(len(row), "column", "columns"), r.table.columns))
	default:
		return r.takeSerial(strings.TrimSpace(row[r.table.serial]))
	}
	return nil
}

// split takes a row apart. It fails where quotation marks enclose no whole field. The
// fields are good until the next split.
func (t *table) split(line string) (fields []string, ok bool) {
	t.row = t.row[:0]
	for more := true; more; {
		var field string
		if strings.HasPrefix(line, `"`) {
			if field, line, ok = unquote(line[1:]); !ok || line != "" && line[0] != t.separator {
				return nil, false
			}
			if more = line != ""; more {
				line = line[1:]
			}
		} else if field, line, more = strings.Cut(line, string(t.separator)); strings.Contains(field, `"`) {
			return nil, false
		}
		t.row = append(t.row, field)
	}
	return t.row, true
}

// unquote returns the field that a quotation mark begins, and what follows it. Two
// quotation marks in it are one.
func unquote(text string) (field, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != '"':
		case strings.HasPrefix(text[i:], `""`):
			i++
		default:
			return strings.ReplaceAll(text[:i], `""`, `"`), text[i+1:], true
		}
	}
	return "", "", false
}
