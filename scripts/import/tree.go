package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A tree is a YAML or JSON document that knows which of its values have been
// looked at: what nobody has asked for is what is not carried over.
type tree struct {
	path  string
	tag   string // of YAML, such as !!binary
	text  string // of a scalar
	keys  []string
	kids  map[string]*tree
	items []*tree
	seen  bool
}

func readTree(file string) (*tree, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(n.Content) == 0 || n.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: is not in the format that was named", file)
	}
	return newTree(n.Content[0], "", 0), nil
}

func newTree(n *yaml.Node, path string, depth int) *tree {
	if depth > 64 {
		return &tree{path: path}
	}
	t := &tree{path: path, tag: n.Tag}
	switch n.Kind {
	case yaml.AliasNode:
		return newTree(n.Alias, path, depth+1)
	case yaml.MappingNode:
		t.kids = map[string]*tree{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if t.kids[key] == nil {
				t.keys = append(t.keys, key)
			}
			t.kids[key] = newTree(n.Content[i+1], join(path, key), depth+1)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			t.items = append(t.items, newTree(item, fmt.Sprintf("%s[%d]", path, i), depth+1))
		}
	default:
		if t.tag != "!!null" {
			t.text = n.Value
		}
	}
	return t
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// get follows keys; it gives an empty tree where there is none.
func (t *tree) get(keys ...string) *tree {
	for _, k := range keys {
		kid := t.kids[k]
		if kid == nil {
			return &tree{path: join(t.path, k)}
		}
		t = kid
	}
	return t
}

// str gives a scalar.
func (t *tree) str() string {
	t.seen = true
	return t.text
}

func (t *tree) is(words ...string) bool {
	for _, w := range words {
		if t.text == w {
			t.seen = true
			return true
		}
	}
	return false
}

func (t *tree) num() int {
	t.seen = true
	n, _ := strconv.Atoi(t.text)
	return n
}

// list gives the items of a list, or a scalar as a list of itself.
func (t *tree) list() []*tree {
	if t.text != "" {
		return []*tree{t}
	}
	return t.items
}

// strs gives a list of scalars.
func (t *tree) strs() []string {
	var all []string
	for _, i := range t.list() {
		all = append(all, i.str())
	}
	return all
}

// skip marks all below as looked at.
func (t *tree) skip() {
	t.seen = true
	for _, k := range t.kids {
		k.skip()
	}
	for _, i := range t.items {
		i.skip()
	}
}

func (t *tree) exists() bool { return t.text != "" || len(t.kids) > 0 || len(t.items) > 0 }

// touched tells whether anything at or below it has been looked at.
func (t *tree) touched() bool {
	if t.seen {
		return true
	}
	for _, k := range t.kids {
		if k.touched() {
			return true
		}
	}
	for _, i := range t.items {
		if i.touched() {
			return true
		}
	}
	return false
}

// rest lists what has not been looked at. What is empty, false or 0 says
// nothing.
func (t *tree) rest() []string {
	if t.seen || !t.exists() || t.text == "false" || t.text == "0" {
		return nil
	}
	if t.text != "" {
		if secretKey(t.path) {
			return []string{t.path + " is not carried over"}
		}
		return []string{fmt.Sprintf("%s = %.120s is not carried over", t.path, t.text)}
	}
	if !t.touched() && len(t.scalars()) > 4 {
		t.skip()
		return []string{t.path + " is not carried over"}
	}
	var all []string
	for _, k := range t.keys {
		all = append(all, t.kids[k].rest()...)
	}
	for _, i := range t.items {
		all = append(all, i.rest()...)
	}
	t.skip()
	return all
}

func (t *tree) scalars() (all []*tree) {
	if t.text != "" {
		return []*tree{t}
	}
	for _, k := range t.keys {
		all = append(all, t.kids[k].scalars()...)
	}
	for _, i := range t.items {
		all = append(all, i.scalars()...)
	}
	return all
}

// secretKey tells whether a value may be a credential, which is not to be
// printed.
func secretKey(path string) bool {
	path = strings.ToLower(path)
	for _, word := range []string{"pass", "secret", "token", "key", "credential", "auth", "cookie"} {
		if strings.Contains(path, word) {
			return true
		}
	}
	return false
}

// rest notes all that is left of a tree.
func (t *table) rest(of *tree) {
	for _, line := range of.rest() {
		t.note("%s", line)
	}
}
