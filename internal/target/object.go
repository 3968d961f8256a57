package target

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// MaxLine bounds a line that this program reads: of a list, a plan or a journal,
// in bytes. What it writes stays below, so that it can be read again.
const MaxLine = 1 << 20

// maxKeys bounds how many keys an object may have. Ours have fewer than 20.
const maxKeys = 100

var errNoObject = errors.New("not a JSON object")

// ReadObject reads a line of our own JSON, one object, into the struct that v
// points to. json.Unmarshal takes keys in any case, and of several the last:
// then what this program does is not what other programs show. ReadObject takes
// the keys of the struct as they are, passes over all others, and refuses a key
// that is there twice. Its errors do not show what is in the line.
func ReadObject(line []byte, v any) error {
	line = bytes.Trim(line, " \t\r\n") // RFC 8259, section 2
	if len(line) == 0 || line[0] != '{' || !json.Valid(line) {
		return errNoObject
	}
	known := keysOf(reflect.TypeOf(v).Elem())
	ours := append(make([]byte, 0, len(line)), '{')
	seen := make([][]byte, 0, maxKeys)
	for i := 1; ; {
		i += bytes.IndexAny(line[i:], `"}`)
		if line[i] == '}' {
			break
		}
		end := endOfString(line, i)
		key := unquoted(line[i : end+1])
		for _, other := range seen {
			if bytes.Equal(key, other) {
				return errors.New("a key appears twice")
			}
		}
		if seen = append(seen, key); len(seen) > maxKeys {
			return fmt.Errorf("more than %d keys", maxKeys)
		}
		i = endOfValue(line, end+1) // with the colon
		if known[string(key)] {
			ours = append(append(append(ours, '"'), key...), '"')
			ours = append(append(ours, line[end+1:i]...), ',')
		}
	}
	if last := len(ours) - 1; ours[last] == ',' {
		ours = ours[:last]
	}
	return json.Unmarshal(append(ours, '}'), v)
}

// unquoted returns a key without its quotation marks.
func unquoted(key []byte) []byte {
	if bytes.IndexByte(key, '\\') < 0 {
		return key[1 : len(key)-1]
	}
	var s string
	_ = json.Unmarshal(key, &s) // it is valid
	return []byte(s)
}

// endOfString returns where a string of valid JSON ends that begins at i.
func endOfString(line []byte, i int) int {
	for i++; line[i] != '"'; i++ {
		if line[i] == '\\' {
			i++
		}
	}
	return i
}

// endOfValue returns where the comma or the brace is that ends the value at i of
// an object of valid JSON.
func endOfValue(line []byte, i int) int {
	for depth := 0; ; i++ {
		switch line[i] {
		case '"':
			i = endOfString(line, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}

// keys are the keys of the structs that were read, by their types.
var keys sync.Map

// keysOf returns the keys of a struct in JSON.
func keysOf(t reflect.Type) map[string]bool {
	if known, ok := keys.Load(t); ok {
		return known.(map[string]bool)
	}
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	keys.Store(t, known)
	return known
}
