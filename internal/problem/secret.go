package problem

import (
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	minPart   = 8        // bytes of a secret that give something of it away
	minSecret = 4        // bytes; what is shorter is not looked for: it would be found everywhere
	maxSecret = 16 << 10 // bytes of a secret that are looked for
	maxLevels = 4        // escapes of escapes of escapes
)

// hidden is what Hide was told: the secrets that are shorter than a part, and the
// parts of all others.
var hidden = struct {
	sync.RWMutex
	short []string
	parts map[string]bool
}{parts: map[string]bool{}}

// Hide remembers a secret that was read, such as a password, for Clean.
func Hide(secret string) {
	hidden.Lock()
	defer hidden.Unlock()
	secret = secret[:min(len(secret), maxSecret)]
	switch {
	case len(secret) >= minPart:
		for i := range len(secret) - minPart + 1 {
			hidden.parts[secret[i:i+minPart]] = true
		}
	case len(secret) >= minSecret && !slices.Contains(hidden.short, secret):
		hidden.short = append(hidden.short, secret)
	}
}

// jwt matches what looks like a token, or its beginning.
var jwt = regexp.MustCompile(`eyJ[\w-]{5,}[\w.-]*`)

// Clean takes secrets out of a text that comes from outside, in case it repeats
// what it was sent or what stands in a file: all that look like a token, any part
// of the token that was sent, if there is one, and of what Hide was told. It finds
// them behind the escapes of JSON, URLs and HTML, too. It is not for our own words:
// what is missing there would tell what the secret is.
func Clean(text, sent string) string {
	hidden.RLock()
	defer hidden.RUnlock()
	c := cleaning{text: text, marks: make([]kind, len(text)+1)}
	r := literally(text)
	for range maxLevels {
		c.find(r, sent)
		plain := r.unescaped()
		if plain.chars == r.chars {
			break
		}
		r = plain
	}
	return c.rest()
}

// A kind is what is found in a text: what stands for it there.
type kind string

const (
	token    kind = "(a token)"
	password kind = "(a secret)"
)

// A cleaning marks the bytes of a text that are to be taken out.
type cleaning struct {
	text  string
	marks []kind
}

// find marks the secrets in one reading of the text.
func (c cleaning) find(r reading, sent string) {
	for _, at := range jwt.FindAllStringIndex(r.chars, -1) {
		c.mark(r, at[0], at[1], token)
	}
	for i := range max(0, len(r.chars)-minPart+1) {
		switch part := r.chars[i : i+minPart]; {
		case strings.Contains(sent, part):
			c.mark(r, i, i+minPart, token)
		case hidden.parts[part]:
			c.mark(r, i, i+minPart, password)
		}
	}
	for _, secret := range hidden.short {
		for i, end := strings.Index(r.chars, secret), 0; i >= 0; i = strings.Index(r.chars[end:], secret) {
			i, end = end+i, end+i+len(secret)
			c.mark(r, i, end, password)
		}
	}
}

func (c cleaning) mark(r reading, from, to int, what kind) {
	for at := r.from[from]; at < r.from[to]; at++ {
		if c.marks[at] != token {
			c.marks[at] = what
		}
	}
}

// rest is the text without what is marked.
func (c cleaning) rest() string {
	var b strings.Builder
	for i := range len(c.text) {
		if c.marks[i] == "" {
			b.WriteByte(c.text[i])
		} else if c.marks[i] != c.marks[i+1] {
			b.WriteString(string(c.marks[i]))
		}
	}
	return b.String()
}

// Cleaned returns an error of a library with a text that Clean has gone over.
func Cleaned(err error) error {
	if err == nil {
		return nil
	}
	return Reword(err, Clean(err.Error(), ""))
}

// Reword returns the error with another text.
func Reword(err error, text string) error {
	if text == err.Error() {
		return err
	}
	return &Reworded{error: err, text: text}
}

// A Reworded is an error with another text.
type Reworded struct {
	error
	text string
}

func (e *Reworded) Error() string { return e.text }

// Unwrap returns the error with its own text.
func (e *Reworded) Unwrap() error { return e.error }

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

var escapes = regexp.MustCompile(`%[[:xdigit:]]{2}|\\u[[:xdigit:]]{4}|\\x[[:xdigit:]]{2}|\\[^ux]|\+|&#?\w{1,9};`)

// unescaped reads escapes as the characters that they stand for.
func (r reading) unescaped() (plain reading) {
	var b strings.Builder
	end := 0
	for _, at := range append(escapes.FindAllStringIndex(r.chars, -1), []int{len(r.chars), len(r.chars)}) {
		b.WriteString(r.chars[end:at[0]])
		plain.from = append(plain.from, r.from[end:at[0]]...)
		if chars := meaning(r.chars[at[0]:at[1]]); chars != "" {
			b.WriteString(chars)
			for range len(chars) {
				plain.from = append(plain.from, r.from[at[0]])
			}
		} else {
			b.WriteString(r.chars[at[0]:at[1]])
			plain.from = append(plain.from, r.from[at[0]:at[1]]...)
		}
		end = at[1]
	}
	plain.chars, plain.from = b.String(), append(plain.from, r.from[len(r.chars)])
	return plain
}

// meaning returns what an escape stands for, or nothing if it is none: a byte of
// UTF-8 in a URL, else a character.
func meaning(escape string) string {
	switch {
	case escape == "":
		return ""
	case escape[0] == '&':
		if s := html.UnescapeString(escape); s != escape {
			return s
		}
		return ""
	case escape == "+": // in a URL
		return " "
	case escape[0] == '\\' && strings.IndexByte("ux", escape[1]) < 0:
		if i := strings.IndexByte("abfnrtv", escape[1]); i >= 0 {
			return "\a\b\f\n\r\t\v"[i : i+1]
		}
		return escape[1:]
	}
	digits := escape[2:] // \u0041, \x41
	if escape[0] == '%' {
		digits = escape[1:]
	}
	n, err := strconv.ParseUint(digits, 16, 16)
	switch {
	case err != nil:
		return ""
	case escape[1] == 'u':
		return string(rune(n))
	}
	return string([]byte{byte(n)})
}
