package yamldoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxAliased bounds what a document's aliases stand for, in bytes: a few of them can name more than any
// memory holds. Real manifests use none, or repeat some lines.
const maxAliased = 16 << 20

// nodeCost is what a value costs beside its text.
const nodeCost = 16

// Check tells whether a document is well-formed, and of bounded size once its aliases are replaced, and
// answers how many values it holds: keys, too, and each as often as it was written. The error names the line
// of the input.
func (d Document) Check() (values int, err error) {
	if d.JSON {
		if values, err = tokens(d.Body); err != nil {
			return 0, fmt.Errorf("line %d: JSON: %w", d.Line, err)
		}
		return values, nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(d.Body, &root); err != nil {
		return 0, d.located(err)
	}
	m := measure{sizes: map[*yaml.Node]int{}}
	if _, err := m.size(&root); err != nil {
		return 0, fmt.Errorf("line %d: YAML: %w", d.Line, err)
	}
	return m.values, nil
}

// tokens counts what JSON holds, but for what ends objects and arrays.
func tokens(body []byte) (int, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return 0, err
	}
	values, in := 0, json.NewDecoder(bytes.NewReader(body))
	for {
		t, err := in.Token()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			return 0, err
		}
		if t != json.Delim('}') && t != json.Delim(']') {
			values++
		}
	}
}

var lineOf = regexp.MustCompile(`^line (\d+): `)

// located says a parser's error with the line of the input.
func (d Document) located(err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), d.Line
	if m := lineOf.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1]) // digits; a line that does not fit is no line
		text, line = text[len(m[0]):], d.Line+max(n, 1)-1
	}
	return fmt.Errorf("line %d: YAML: %s", line, text)
}

var errTooMuch = errors.New("its aliases stand for too much: write out what they repeat, or less of it")

// measure adds up what a document is once its aliases are replaced.
type measure struct {
	values  int
	sizes   map[*yaml.Node]int // of anchored nodes; -1 while they are measured
	aliased int
}

func (m *measure) size(n *yaml.Node) (int, error) {
	if n.Kind == yaml.AliasNode {
		size, known := m.sizes[n.Alias]
		if !known || size < 0 {
			return 0, errors.New("alias *" + n.Value + " stands for something that contains it")
		}
		if m.aliased += size; m.aliased > maxAliased {
			return 0, errTooMuch
		}
		return size, nil
	}
	m.values++
	if n.Anchor != "" {
		m.sizes[n] = -1
	}
	total := nodeCost + len(n.Value)
	for _, c := range n.Content {
		size, err := m.size(c)
		if err != nil {
			return 0, err
		}
		total += size
	}
	if n.Anchor != "" {
		m.sizes[n] = total
	}
	return total, nil
}
