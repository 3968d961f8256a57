package target

import "bytes"

// A needle is a text in lower case that is looked for in certificates, whatever
// the case of ASCII letters there. Looking for it is Horspool's algorithm.
type needle struct {
	text   []byte
	skip   [256]uint8 // by the byte under the needle's end
	unless []byte     // a certificate without this one may match, too; nil: none may
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

// isIn tells whether the needle is in a certificate, or may match it all the same.
func (n *needle) isIn(r record) bool {
	last := len(n.text) - 1
	for end := last; end < len(r.der); end += int(n.skip[r.der[end]]) {
		i := 0
		for i <= last && lowerByte(r.der[end-i]) == n.text[last-i] {
			i++
		}
		if i > last {
			return true
		}
	}
	return n.unless != nil && !bytes.Contains(r.der, n.unless)
}
