// Package yamldoc takes apart what people hand in as manifests (YAML of many documents, JSON objects one
// after the other) and checks each document, without knowing what it means. One malformed document does
// not hide the others, and an alias can not grow a few bytes into all of the memory.
package yamldoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// MaxDocuments bounds how many documents one input may hold.
const MaxDocuments = 10_000

// Document is one that holds something. Its bytes are the input's.
type Document struct {
	Number int // 1 for the first one that holds something
	Line   int // of the input where it begins, from 1
	Body   []byte
	JSON   bool // an object of JSON; else YAML
}

// Split takes an input apart. Nothing is checked but the number of documents; what is empty, or only
// comments, is no document.
func Split(input []byte) ([]Document, error) {
	input = bytes.TrimPrefix(input, []byte("\xEF\xBB\xBF"))
	var all []Document
	line := 1
	for chunk := range chunks(input) {
		all = append(all, documents(chunk, line)...)
		line += bytes.Count(chunk, []byte("\n"))
		if len(all) > MaxDocuments {
			return nil, fmt.Errorf("more than %d documents; hand them in by parts", MaxDocuments)
		}
	}
	for i := range all {
		all[i].Number = i + 1
	}
	return all, nil
}

// chunks yields the input in pieces that begin with document markers. A marker at the beginning of a line
// is one wherever it stands: neither a block scalar nor a quoted one may hold it.
func chunks(input []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		start, content, directives := 0, false, false // of the chunk
		for at := 0; at < len(input); {
			end := len(input)
			if i := bytes.IndexByte(input[at:], '\n'); i >= 0 {
				end = at + i + 1
			}
			line := input[at:end]
			if marker(line) {
				// "%YAML 1.2" and what else precedes a marker belong to the document behind it.
				if at > start && (content || !directives) {
					if !yield(input[start:at]) {
						return
					}
					start, content = at, false
				}
				directives = false
			}
			content = content || holds(line)
			directives = directives || line[0] == '%' && !content
			at = end
		}
		if start < len(input) {
			yield(input[start:])
		}
	}
}

// marker tells whether a line begins or ends a document.
func marker(line []byte) bool {
	rest, found := bytes.CutPrefix(line, []byte("---"))
	if !found {
		rest, found = bytes.CutPrefix(line, []byte("..."))
	}
	return found && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// holds tells whether a line holds more than a marker, a directive or a comment.
func holds(line []byte) bool {
	text := line
	if marker(line) {
		text = line[3:]
	}
	text = bytes.TrimSpace(text)
	return len(text) > 0 && text[0] != '#' && line[0] != '%'
}

func anyHolds(chunk []byte) bool {
	for line := range bytes.Lines(chunk) {
		if holds(line) {
			return true
		}
	}
	return false
}

// documents makes documents of a chunk that begins on a line: one of YAML, or each value of a stream of
// JSON. JSON is tried first where it may be some, since YAML forbids the tabs that indent it.
func documents(chunk []byte, line int) []Document {
	if !anyHolds(chunk) {
		return nil
	}
	start := 0
	if marker(chunk) {
		start = 3
	}
	var all []Document
	if text := bytes.TrimSpace(chunk[start:]); len(text) == 0 || text[0] != '{' {
		return []Document{{Line: line, Body: chunk}}
	}
	values := json.NewDecoder(bytes.NewReader(chunk[start:]))
	for {
		before := start + int(values.InputOffset())
		var value json.RawMessage
		err := values.Decode(&value)
		if err == io.EOF {
			return all
		}
		if err != nil && len(all) == 0 {
			return []Document{{Line: line, Body: chunk}}
		}
		end := len(chunk)
		if err == nil {
			end = start + int(values.InputOffset())
		}
		body := bytes.TrimSpace(chunk[before:end])
		at := before + bytes.Index(chunk[before:end], body)
		all = append(all, Document{Line: line + bytes.Count(chunk[:at], []byte("\n")), Body: body, JSON: true})
		if err != nil {
			return all
		}
	}
}
