package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// node is a JSON Schema (draft 2020-12), as far as a Field needs it.
type node struct {
	Title       string          `json:"title,omitempty"`
	Description string          `json:"description,omitempty"`
	Type        string          `json:"type,omitempty"`
	Format      string          `json:"format,omitempty"`
	Default     json.RawMessage `json:"default,omitempty"`
	Enum        []string        `json:"enum,omitempty"`
	Minimum     *float64        `json:"minimum,omitempty"`
	Maximum     *float64        `json:"maximum,omitempty"`
	WriteOnly   bool            `json:"writeOnly,omitempty"` // a credential
	Large       bool            `json:"x-large,omitempty"`   // judged, not printed
	Items       *node           `json:"items,omitempty"`
	Properties  *properties     `json:"properties,omitempty"`
	Required    []string        `json:"required,omitempty"`
	Additional  json.RawMessage `json:"additionalProperties,omitempty"`
}

// properties is an object whose members keep their order.
type properties []property

type property struct {
	name string
	node *node
}

func (p properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		k, _ := json.Marshal(m.name)
		v, err := marshal(m.node)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (p *properties) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		n := new(node)
		if err := d.Decode(n); err != nil {
			return err
		}
		*p = append(*p, property{t.(string), n})
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// MarshalJSON writes the field as JSON Schema.
func (f Field) MarshalJSON() ([]byte, error) { return marshal(f.node()) }

// UnmarshalJSON reads what MarshalJSON has written.
func (f *Field) UnmarshalJSON(b []byte) error {
	var n node
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*f = n.field("")
	return nil
}

func (f *Field) node() *node {
	n := &node{
		Description: f.Doc, Type: f.jsonType(), Default: f.Default, Enum: f.Enum,
		Minimum: f.Min, Maximum: f.Max, WriteOnly: f.Secret, Large: f.Large,
	}
	switch f.Type {
	case Any:
		n.Type = ""
	case Duration:
		n.Format = "duration-text"
	case Time:
		n.Format = "date-time"
	case Array:
		n.Items = f.Items.node()
	case Table:
		n.Additional, _ = marshal(f.Items.node())
	case Object:
		n.Properties = &properties{}
		n.Additional = json.RawMessage("false")
		for i := range f.Fields {
			sub := &f.Fields[i]
			*n.Properties = append(*n.Properties, property{sub.Name, sub.node()})
			if sub.Required {
				n.Required = append(n.Required, sub.Name)
			}
		}
	}
	return n
}

func (n *node) field(name string) Field {
	f := Field{
		Name: name, Type: Type(n.Type), Doc: n.Description, Default: n.Default, Enum: n.Enum,
		Min: n.Minimum, Max: n.Maximum, Secret: n.WriteOnly, Large: n.Large,
	}
	switch {
	case n.Type == "":
		f.Type = Any
	case n.Format == "duration-text":
		f.Type = Duration
	case n.Format == "date-time":
		f.Type = Time
	case n.Items != nil:
		items := n.Items.field("")
		f.Items = &items
	case n.Properties != nil:
		for _, p := range *n.Properties {
			sub := p.node.field(p.name)
			for _, r := range n.Required {
				sub.Required = sub.Required || r == p.name
			}
			f.Fields = append(f.Fields, sub)
		}
	case n.Type == "object":
		var items node
		_ = json.Unmarshal(n.Additional, &items)
		sub := items.field("")
		f.Type, f.Items = Table, &sub
	}
	return f
}

// Markdown renders the members of f as a table, nested ones with dotted names
// below prefix.
func (f *Field) Markdown(prefix string, defaults bool) string {
	var b strings.Builder
	if defaults {
		b.WriteString("| option | type | default | meaning |\n|---|---|---|---|\n")
	} else {
		b.WriteString("| fact | type | meaning |\n|---|---|---|\n")
	}
	f.rows(&b, prefix, defaults)
	return b.String()
}

func (f *Field) rows(b *strings.Builder, prefix string, defaults bool) {
	for i := range f.Fields {
		sub := &f.Fields[i]
		name := prefix + "." + sub.Name
		fmt.Fprintf(b, "| `%s` | %s |", name, sub.TypeText())
		if defaults {
			fmt.Fprintf(b, " %s |", defaultText(sub))
		}
		fmt.Fprintf(b, " %s |\n", strings.ReplaceAll(sub.Meaning(), "|", "\\|"))
		switch {
		case sub.Type == Object:
			sub.rows(b, name, defaults)
		case sub.Type == Array && sub.Items.Type == Object:
			sub.Items.rows(b, name+"[]", defaults)
		}
	}
}

// TypeText names the type for a reader: "list of strings".
func (f *Field) TypeText() string {
	switch f.Type {
	case Array:
		return "list of " + f.Items.TypeText() + "s"
	case Table:
		return "table of " + f.Items.TypeText() + "s"
	case Object:
		return "table"
	case Any:
		return "anything"
	}
	return string(f.Type)
}

// Meaning is the field's doc with its allowed words and bounds.
func (f *Field) Meaning() string {
	s := f.Doc
	if len(f.Enum) > 0 {
		s += " One of " + strings.Join(f.Enum, ", ") + "."
	}
	switch {
	case f.Min != nil && f.Max != nil:
		s += fmt.Sprintf(" From %v to %v.", *f.Min, *f.Max)
	case f.Min != nil:
		s += fmt.Sprintf(" At least %v.", *f.Min)
	case f.Max != nil:
		s += fmt.Sprintf(" At most %v.", *f.Max)
	}
	if f.Required {
		s += " Required."
	}
	if f.Secret {
		s += " A credential: write `${secret:NAME}` or `${env:PUP_NAME}`."
	}
	if f.Large {
		s += " Can be judged, is not printed."
	}
	return s
}

func defaultText(f *Field) string {
	if f.Default == nil {
		return ""
	}
	return "`" + strings.ReplaceAll(string(f.Default), "|", "\\|") + "`"
}
