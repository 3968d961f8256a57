package target

import (
	"bytes"
	"slices"
	"time"
)

// A needle is a text in lower case that is looked for in certificates, whatever
// the case of ASCII letters there. Looking for it is Horspool's algorithm.
type needle struct {
	text []byte
	skip [256]uint8 // by the byte under the needle's end
}

func newNeedle(text []byte) *needle {
	const longest = 255 // so that skip holds it; a part of the text serves as well
	n := &needle{text: lower(text)}
	n.text = n.text[:min(len(n.text), longest)]
	for i := range n.skip {
		n.skip[i] = uint8(len(n.text))
	}
	for i, c := range n.text[:len(n.text)-1] {
		n.skip[c] = uint8(len(n.text) - 1 - i)
		if 'a' <= c && c <= 'z' {
			n.skip[c-'a'+'A'] = n.skip[c]
		}
	}
	return n
}

// lower writes ASCII letters in lower case.
func lower(text []byte) []byte {
	out := bytes.Clone(text)
	for i, c := range out {
		out[i] = lowerByte(c)
	}
	return out
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c - 'A' + 'a'
	}
	return c
}

// isIn tells whether the needle is in a certificate.
func (n *needle) isIn(der []byte) bool {
	last := len(n.text) - 1
	for end := last; end < len(der); end += int(n.skip[der[end]]) {
		i := 0
		for i <= last && lowerByte(der[end-i]) == n.text[last-i] {
			i++
		}
		if i > last {
			return true
		}
	}
	return false
}

// anyOf is the quick look of a condition: the certificate has one of these needles.
func anyOf(texts ...[]byte) func(record, time.Time) bool {
	var needles []*needle
	for _, text := range texts {
		needles = append(needles, newNeedle(text))
	}
	return func(r record, _ time.Time) bool {
		return slices.ContainsFunc(needles, func(n *needle) bool { return n.isIn(r.der) })
	}
}
