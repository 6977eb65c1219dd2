package schema

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
)

// A Member is a name with its JSON value.
type Member struct {
	Name  string
	Value []byte
}

type factPlan struct {
	name   string
	key    string // `,"name":`
	index  []int
	large  bool
	kind   reflect.Kind // of the field
	append appender     // what it holds, behind a pointer as well
}

// of gives the field of a struct.
func (p *factPlan) of(v reflect.Value) reflect.Value {
	if len(p.index) == 1 { // nearly always, and much faster
		return v.Field(p.index[0])
	}
	return v.FieldByIndex(p.index)
}

// known gives what the field of a struct holds, if that is known.
func (p *factPlan) known(v reflect.Value) (reflect.Value, bool) {
	f := p.of(v)
	switch p.kind { // nearly all facts, and most of them are not known
	case reflect.String:
		return f, f.Len() > 0
	case reflect.Pointer:
		if f.IsNil() {
			return f, false
		}
	}
	return present(f)
}

// An appender appends a value that is neither a pointer nor an interface.
type appender func(dst []byte, v reflect.Value) []byte

// appenderOf gives that of a type, or of what it points to.
func appenderOf(t reflect.Type) appender {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case timeType, durationType, rawType:
		return appendPresent
	}
	switch t.Kind() {
	case reflect.String:
		return func(dst []byte, v reflect.Value) []byte { return ndjson.AppendString(dst, v.String()) }
	case reflect.Bool:
		return func(dst []byte, v reflect.Value) []byte { return strconv.AppendBool(dst, v.Bool()) }
	case reflect.Int:
		return func(dst []byte, v reflect.Value) []byte { return strconv.AppendInt(dst, v.Int(), 10) }
	}
	return appendPresent
}

var plans sync.Map // reflect.Type -> *factPlans

// factPlans are the facts of a struct.
type factPlans struct {
	list   []factPlan
	byName map[string]*factPlan
}

func planOf(t reflect.Type) *factPlans {
	if p, ok := plans.Load(t); ok {
		return p.(*factPlans)
	}
	p := &factPlans{byName: map[string]*factPlan{}}
	for _, sf := range fieldsOf(t) {
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		p.list = append(p.list, factPlan{name, `,"` + name + `":`, sf.index, sf.Tag.Get("large") == "true", sf.Type.Kind(), appenderOf(sf.Type)})
	}
	for i := range p.list {
		p.byName[p.list[i].name] = &p.list[i]
	}
	plans.Store(t, p)
	return p
}

// present follows pointers and interfaces. A zero value means unknown, so a
// fact whose zero means something is a pointer.
func present(v reflect.Value) (reflect.Value, bool) {
	pointer := false
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return v, false
		}
		pointer = true
		v = v.Elem()
	}
	return v, pointer || !v.IsZero()
}

// AppendMembers appends the facts that are known to buf, without the large
// ones, as the members of an object, and each of them to ms, unless that is nil:
// its value is a part of buf. V is a struct or a pointer to one.
func AppendMembers(ms *[]Member, buf []byte, v any) []byte {
	return appendMembers(ms, buf, reflect.Indirect(reflect.ValueOf(v)))
}

func appendMembers(ms *[]Member, buf []byte, rv reflect.Value) []byte {
	plan := planOf(rv.Type()).list
	start := len(buf)
	for i := range plan {
		p := &plan[i]
		fv, ok := p.known(rv)
		if p.large || !ok {
			continue
		}
		key := p.key
		if len(buf) == start {
			key = key[len(","):]
		}
		buf = append(buf, key...)
		n := len(buf)
		buf = p.append(buf, fv)
		if ms != nil {
			*ms = append(*ms, Member{p.name, buf[n:len(buf):len(buf)]})
		}
	}
	return buf
}

func appendValue(dst []byte, v reflect.Value) []byte {
	v, ok := present(v)
	if !ok && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
		return append(dst, "null"...)
	}
	return appendPresent(dst, v)
}

// appendPresent appends what is neither a pointer nor an interface.
func appendPresent(dst []byte, v reflect.Value) []byte {
	switch v.Type() { // before anything is boxed
	case timeType:
		return wire.AppendTime(dst, v.Interface().(time.Time))
	case durationType:
		return ndjson.AppendString(dst, wire.Duration(v.Int()).String())
	case rawType:
		return append(dst, v.Bytes()...)
	}
	switch v.Kind() {
	case reflect.String:
		return ndjson.AppendString(dst, v.String())
	case reflect.Bool:
		return strconv.AppendBool(dst, v.Bool())
	case reflect.Float64:
		return appendFloat(dst, v.Float())
	case reflect.Slice:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, v.Index(i))
		}
		return append(dst, ']')
	case reflect.Map:
		return appendMap(dst, v)
	case reflect.Struct:
		return appendStruct(dst, v)
	}
	if v.CanUint() {
		return strconv.AppendUint(dst, v.Uint(), 10)
	}
	return strconv.AppendInt(dst, v.Int(), 10)
}

// appendStruct appends the facts of a struct within another.
func appendStruct(dst []byte, v reflect.Value) []byte {
	return append(appendMembers(nil, append(dst, '{'), v), '}')
}

// appendFloat writes at most three decimals, as all measures are rounded.
func appendFloat(dst []byte, x float64) []byte {
	if x != x || x > 1e15 || x < -1e15 {
		return append(dst, "null"...)
	}
	dst = strconv.AppendFloat(dst, x, 'f', 3, 64)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	if dst[len(dst)-1] == '.' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func appendMap(dst []byte, v reflect.Value) []byte {
	keys := v.MapKeys()
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, n := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = ndjson.AppendString(dst, n)
		dst = append(dst, ':')
		dst = appendValue(dst, v.MapIndex(reflect.ValueOf(n).Convert(v.Type().Key())))
	}
	return append(dst, '}')
}

// Values gives the facts that are known, the large ones among them, for an
// expression to judge. Names says which are asked for; nil: all.
func Values(v any, names []string) map[string]any {
	m := map[string]any{}
	AddValues(m, v, names)
	return m
}

// AddValues adds what Values gives to m.
func AddValues(m map[string]any, v any, names []string) {
	rv := reflect.Indirect(reflect.ValueOf(v))
	plan := planOf(rv.Type())
	add := func(p *factPlan) {
		if fv, ok := p.known(rv); ok {
			m[p.name] = plain(fv)
		}
	}
	if names == nil {
		for i := range plan.list {
			add(&plan.list[i])
		}
	}
	for _, name := range names {
		if p := plan.byName[name]; p != nil {
			add(p)
		}
	}
}

func plain(v reflect.Value) any {
	v, ok := present(v)
	if !ok && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
		return nil
	}
	switch v.Type() {
	case timeType:
		return v.Interface().(time.Time).UTC().Format(wire.TimeFormat)
	case durationType:
		return wire.Duration(v.Int()).String()
	case rawType:
		var a any
		_ = json.Unmarshal(v.Bytes(), &a)
		return a
	case bytesType:
		return string(v.Bytes())
	}
	switch v.Kind() {
	case reflect.Struct:
		return Values(v.Interface(), nil)
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Map:
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = plain(it.Value())
		}
		return m
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Float64:
		return v.Float()
	}
	if v.CanUint() {
		return int(v.Uint())
	}
	return int(v.Int())
}
