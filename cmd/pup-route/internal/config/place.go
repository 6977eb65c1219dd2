package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/pelletier/go-toml/v2/unstable"
)

// decode reads a TOML text. An error comes with its line, 0 if that is not
// known.
func decode(text []byte) (tree map[string]any, line int, err error) {
	_, err = toml.Decode(string(text), &tree)
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		return nil, pe.Position.Line, errors.New(pe.Message)
	}
	return tree, 0, err
}

// places finds the line of each key of a valid TOML text, by its path as
// schema names it: "hook[2].after".
func places(text []byte) map[string]int {
	lines := map[string]int{}
	elements := map[string]int{}
	var p unstable.Parser
	p.Reset(text)
	prefix := ""
	for p.NextExpression() {
		n := p.Expression()
		switch n.Kind {
		case unstable.KeyValue:
			note(lines, &p, text, prefix, n.Key(), elements)
		case unstable.Table:
			prefix = note(lines, &p, text, "", n.Key(), elements)
		case unstable.ArrayTable:
			path := join("", n.Key(), nil)
			elements[path]++
			prefix = note(lines, &p, text, "", n.Key(), elements)
		}
	}
	return lines
}

// note remembers where the key stands and returns its path.
func note(lines map[string]int, p *unstable.Parser, text []byte, prefix string, keys unstable.Iterator, elements map[string]int) string {
	path := join(prefix, keys, elements)
	keys.Next()
	if _, ok := lines[path]; !ok {
		lines[path] = 1 + bytes.Count(text[:keys.Node().Raw.Offset], []byte("\n"))
	}
	return path
}

// join makes a path of a key. A name that has elements stands for the last.
func join(prefix string, keys unstable.Iterator, elements map[string]int) string {
	path := prefix
	for keys.Next() {
		if path != "" {
			path += "."
		}
		path += string(keys.Node().Data)
		if n := elements[path]; n > 0 {
			path += fmt.Sprintf("[%d]", n-1)
		}
	}
	return path
}

// line is the line of the path, or of what it stands in.
func line(lines map[string]int, path string) int {
	for path != "" {
		if n, ok := lines[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}
