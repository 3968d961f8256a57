package online

import (
	"errors"
	"html"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxText   = 1000 // characters of a text of the CA that are kept
	minPart   = 8    // characters of a secret that give something of it away
	maxLevels = 4    // escapes of escapes of escapes
)

// jwt matches what looks like a token, or its beginning.
var jwt = regexp.MustCompile(`eyJ[\w-]{5,}[\w.-]*`)

// hide cuts a text of the CA, and takes out tokens, in case the CA repeats what
// it was sent: all that look like one, and any part of the secret. It finds them
// behind the escapes of JSON, URLs and HTML, too.
func (x exchange) hide(text string) string {
	if utf8.RuneCountInString(text) > maxText {
		text = string([]rune(text)[:maxText]) + "…"
	}
	hidden := make([]bool, len(text)+1)
	r := literally(text)
	mark := func(from, to int) {
		for at := r.from[from]; at < r.from[to]; at++ {
			hidden[at] = true
		}
	}
	for range maxLevels {
		for _, at := range jwt.FindAllStringIndex(r.chars, -1) {
			mark(at[0], at[1])
		}
		for i := 0; i < len(r.chars); i++ {
			if n := r.longest(i, x.secret); n >= minPart {
				mark(i, i+n)
				i += n - 1
			}
		}
		plain := r.unescaped()
		if len(plain.chars) == len(r.chars) {
			break
		}
		r = plain
	}
	var b strings.Builder
	for i := range len(text) {
		if !hidden[i] {
			b.WriteByte(text[i])
		} else if !hidden[i+1] {
			b.WriteString("(a token)")
		}
	}
	return b.String()
}

// A reading is what the characters of a text stand for.
type reading struct {
	chars string
	from  []int // where in the text each of them begins, and where the last one ends
}

// literally reads characters as what they are.
func literally(text string) reading {
	r := reading{chars: text}
	for i := range len(text) + 1 {
		r.from = append(r.from, i)
	}
	return r
}

// longest returns how many characters from the one at i on are a part of the
// secret.
func (r reading) longest(i int, secret string) (n int) {
	if n = min(minPart, len(r.chars)-i); !strings.Contains(secret, r.chars[i:i+n]) {
		return 0
	}
	for i+n < len(r.chars) && strings.Contains(secret, r.chars[i:i+n+1]) {
		n++
	}
	return n
}

var escapes = regexp.MustCompile(`%[[:xdigit:]]{2}|\\u00[[:xdigit:]]{2}|\\x[[:xdigit:]]{2}|\\[-._]|&#?\w{1,9};`)

// unescaped reads escapes as the characters that they stand for.
func (r reading) unescaped() (plain reading) {
	var b strings.Builder
	end := 0
	for _, at := range append(escapes.FindAllStringIndex(r.chars, -1), []int{len(r.chars), len(r.chars)}) {
		b.WriteString(r.chars[end:at[0]])
		plain.from = append(plain.from, r.from[end:at[0]]...)
		if char, ok := character(r.chars[at[0]:at[1]]); ok {
			b.WriteByte(char)
			plain.from = append(plain.from, r.from[at[0]])
		} else {
			b.WriteString(r.chars[at[0]:at[1]])
			plain.from = append(plain.from, r.from[at[0]:at[1]]...)
		}
		end = at[1]
	}
	plain.chars, plain.from = b.String(), append(plain.from, r.from[len(r.chars)])
	return plain
}

// character returns the ASCII character that an escape stands for.
func character(escape string) (char byte, ok bool) {
	switch {
	case escape == "":
		return 0, false
	case escape[0] == '&':
		s := html.UnescapeString(escape)
		return s[0], len(s) == 1
	case len(escape) == 2:
		return escape[1], true
	}
	n, err := strconv.ParseUint(escape[len(escape)-2:], 16, 7)
	return byte(n), err == nil
}

// clean returns the error with a text that hide has gone over.
func (x exchange) clean(err error) error {
	var bad *badAnswerError
	switch {
	case err == nil, has[*refusal](err), has[*redirectError](err): // which are made of clean texts
		return err
	case errors.As(err, &bad):
		return &badAnswerError{error: x.shown(bad.error)}
	}
	return x.shown(err)
}

func (x exchange) shown(err error) error {
	if text := x.hide(err.Error()); text != err.Error() {
		return &shownError{error: err, text: text}
	}
	return err
}

// A shownError is an error with another text.
type shownError struct {
	error
	text string
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.error }
