// Package schema makes one struct declaration serve as option or fact
// decoder, as documentation and as JSON Schema.
//
// The fields of an options struct carry tags: `json` the name, `doc` one
// sentence, and where they apply `enum` the allowed words, `min` and `max` the
// bounds of a number, `required:"true"`, and `secret:"true"` for a credential.
// The value handed to Of gives the defaults. Facts structs have the same tags,
// and `large:"true"` for what can be judged but is not printed.
package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/wire"
)

// A Type is the type of a field. In JSON a duration and a time are strings.
type Type string

// The types.
const (
	String   Type = "string"
	Integer  Type = "integer"
	Number   Type = "number"
	Boolean  Type = "boolean"
	Duration Type = "duration"
	Time     Type = "time"
	Array    Type = "array"  // of Items
	Table    Type = "table"  // from string to Items
	Object   Type = "object" // of Fields
	Any      Type = "any"
)

// A Field describes a member of a JSON object, or the elements of an array.
type Field struct {
	Name     string
	Type     Type
	Doc      string
	Default  json.RawMessage // absent: none
	Enum     []string
	Min, Max *float64
	Required bool
	Secret   bool // only a reference such as ${secret:NAME} may stand here
	Large    bool // a fact that is not printed
	Items    *Field
	Fields   []Field
}

// Field gives the member with the given name, or nil.
func (f *Field) Field(name string) *Field {
	for i := range f.Fields {
		if f.Fields[i].Name == name {
			return &f.Fields[i]
		}
	}
	return nil
}

// Names lists the names of the members.
func (f *Field) Names() []string {
	names := make([]string, len(f.Fields))
	for i := range f.Fields {
		names[i] = f.Fields[i].Name
	}
	return names
}

// Of describes the struct v, whose values are the defaults. It panics where a
// tag is missing, which a test finds.
func Of(v any) Field {
	rv := reflect.ValueOf(v)
	f := typeField(rv.Type())
	addDefaults(&f, rv)
	return f
}

func addDefaults(f *Field, rv reflect.Value) {
	for i := range f.Fields {
		sub, fv := &f.Fields[i], rv.FieldByIndex(fieldsOf(rv.Type())[i].index)
		switch {
		case sub.Type == Object && fv.Kind() == reflect.Struct:
			addDefaults(sub, fv)
		case !fv.IsZero():
			b, err := json.Marshal(fv.Interface())
			if err != nil {
				panic(err)
			}
			sub.Default = b
		}
	}
}

var (
	durationType = reflect.TypeFor[wire.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	bytesType    = reflect.TypeFor[[]byte]()
)

func typeField(t reflect.Type) Field {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case durationType:
		return Field{Type: Duration}
	case timeType:
		return Field{Type: Time}
	case rawType:
		return Field{Type: Any}
	}
	switch t.Kind() {
	case reflect.Bool:
		return Field{Type: Boolean}
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return Field{Type: Integer}
	case reflect.Float64:
		return Field{Type: Number}
	case reflect.String:
		return Field{Type: String}
	case reflect.Interface:
		return Field{Type: Any}
	case reflect.Slice:
		items := typeField(t.Elem())
		return Field{Type: Array, Items: &items}
	case reflect.Map:
		items := typeField(t.Elem())
		return Field{Type: Table, Items: &items}
	case reflect.Struct:
		f := Field{Type: Object}
		for _, sf := range fieldsOf(t) {
			f.Fields = append(f.Fields, structField(t, sf.StructField))
		}
		return f
	}
	panic("schema: no JSON type for " + t.String())
}

func structField(t reflect.Type, sf reflect.StructField) Field {
	f := typeField(sf.Type)
	name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
	f.Name, f.Doc = name, sf.Tag.Get("doc")
	if f.Name == "" || f.Doc == "" {
		panic(fmt.Sprintf("schema: %v.%s needs json and doc tags", t, sf.Name))
	}
	if e := sf.Tag.Get("enum"); e != "" {
		f.Enum = strings.Split(e, ",")
	}
	f.Required = sf.Tag.Get("required") == "true"
	f.Secret = sf.Tag.Get("secret") == "true"
	if f.Type == Table {
		f.Items.Secret = f.Secret
	}
	f.Large = sf.Tag.Get("large") == "true"
	f.Min, f.Max = bound(sf.Tag.Get("min")), bound(sf.Tag.Get("max"))
	return f
}

func bound(s string) *float64 {
	if s == "" {
		return nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return &x
}

type structFieldInfo struct {
	reflect.StructField
	index []int
}

var knownFields sync.Map // reflect.Type -> []structFieldInfo

// fieldsOf lists the JSON fields of a struct, those of embedded structs among
// them. To look a type up takes many allocations, so it remembers them.
func fieldsOf(t reflect.Type) []structFieldInfo {
	if fs, ok := knownFields.Load(t); ok {
		return fs.([]structFieldInfo)
	}
	fs := listFields(t)
	knownFields.Store(t, fs)
	return fs
}

func listFields(t reflect.Type) []structFieldInfo {
	var fs []structFieldInfo
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			for _, sub := range fieldsOf(sf.Type) {
				sub.index = append([]int{i}, sub.index...)
				fs = append(fs, sub)
			}
			continue
		}
		if sf.IsExported() && sf.Tag.Get("json") != "-" {
			fs = append(fs, structFieldInfo{sf, []int{i}})
		}
	}
	return fs
}
