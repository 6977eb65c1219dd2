// Package expr is the language of expect, warn and when: expressions over the
// members of a result, such as "http.status == 200 and ms.total < 800".
// Expr-lang/expr does the work; this package gives it the names and types of
// our lines, functions for addresses, versions and sets, and a memory of what
// it has compiled.
package expr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"pup/cmd/internal/schema"
)

// MaxLength bounds the text of an expression, in bytes.
const MaxLength = 4096

// An Env is the set of names that expressions may use, with their types.
type Env struct {
	root    schema.Field
	options func() []expr.Option

	mu    sync.Mutex
	cache map[string]compiled
}

type compiled struct {
	e   *Expr
	err error
}

// maxCache bounds the memory of what is compiled: targets from a pipe may
// bring ever new expressions.
const maxCache = 4096

// NewEnv makes an environment of the members of root, an object.
func NewEnv(root schema.Field) *Env {
	return &Env{
		root:    root,
		options: sync.OnceValue(func() []expr.Option { return append(functions(), expr.Env(typeOf(root)), expr.AsBool()) }),
		cache:   map[string]compiled{},
	}
}

func typeOf(f schema.Field) types.Type {
	switch f.Type {
	case schema.String, schema.Duration, schema.Time:
		return types.String
	case schema.Integer:
		return types.Int
	case schema.Number:
		return types.Float64
	case schema.Boolean:
		return types.Bool
	case schema.Array:
		return types.Array(typeOf(*f.Items))
	case schema.Table:
		return types.Map{types.Extra: typeOf(*f.Items)}
	case schema.Object:
		m := types.Map{}
		for _, sub := range f.Fields {
			m[sub.Name] = typeOf(sub)
		}
		return m
	}
	return types.Any
}

// An Expr is an expression that has been checked.
type Expr struct {
	text    string
	paths   []string
	objects []string // outer members with members of their own
	program *vm.Program
	quick   quick // nil: only the program can tell
}

// Compile checks text: its syntax, its names, its types. What it found is
// remembered, so that the same text costs nothing the next time.
func Compile(text string, env *Env) (*Expr, error) {
	env.mu.Lock()
	defer env.mu.Unlock()
	if c, ok := env.cache[text]; ok {
		return c.e, c.err
	}
	e, err := compile(text, env)
	if len(env.cache) >= maxCache {
		clear(env.cache)
	}
	env.cache[strings.Clone(text)] = compiled{e, err}
	return e, err
}

func compile(text string, env *Env) (*Expr, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("expression longer than %d bytes", MaxLength)
	}
	tree, err := parser.Parse(text)
	if err != nil {
		return nil, located(text, err)
	}
	paths := pathsOf(tree.Node)
	for _, p := range paths {
		if err := env.known(p); err != nil {
			return nil, fmt.Errorf("in %.200q: %w", text, err)
		}
	}
	if _, err := expr.Compile(text, env.options()...); err != nil {
		return nil, located(text, err)
	}
	// what runs knows no types, since any member may be absent
	program, err := expr.Compile(text, append(functions(), expr.AllowUndefinedVariables(), expr.AsBool(), expr.Patch(absentees{}))...)
	if err != nil {
		return nil, located(text, err)
	}
	objects := env.objects(paths)
	return &Expr{text, paths, objects, program, quickOf(tree.Node, objects)}, nil
}

// objects lists those of the outer members in paths that have members of their
// own.
func (env *Env) objects(paths []string) []string {
	var names []string
	for _, p := range paths {
		name, _, _ := strings.Cut(p, ".")
		if f := env.root.Field(name); f != nil && (f.Type == schema.Object || f.Type == schema.Table) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// absentees rewrites comparisons: with an absent member none holds, where the
// language would give an error that ends the whole expression.
type absentees struct{}

var comparisons = []string{"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches"}

func (absentees) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		if !slices.Contains(comparisons, n.Operator) {
			return
		}
		var absent ast.Node
		for _, side := range []ast.Node{n.Left, n.Right} {
			switch side.(type) {
			case *ast.NilNode:
				return // who asks for nil means it
			case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode, *ast.PointerNode:
				var missing ast.Node = &ast.BinaryNode{Operator: "==", Left: side, Right: &ast.NilNode{}}
				if absent != nil {
					missing = &ast.BinaryNode{Operator: "or", Left: absent, Right: missing}
				}
				absent = missing
			}
		}
		if absent != nil {
			ast.Patch(node, &ast.ConditionalNode{Cond: absent, Exp1: &ast.BoolNode{}, Exp2: n})
		}
	}
}

// located gives the error in one line, with the place in the text.
func located(text string, err error) error {
	if fe, ok := errors.AsType[*file.Error](err); ok {
		return fmt.Errorf("in %.200q, column %d: %s", text, fe.Column+1, strings.TrimSpace(fe.Message))
	}
	return fmt.Errorf("in %.200q: %w", text, err)
}

// known says what is wrong with a path such as "redis.rol".
func (env *Env) known(path string) error {
	f := &env.root
	walked := ""
	for name := range strings.SplitSeq(path, ".") {
		if f.Type != schema.Object {
			return nil // of a table or of anything: nobody knows before
		}
		sub := f.Field(name)
		if sub == nil {
			return fmt.Errorf("unknown name %q%s", walked+name, schema.DidYouMean(name, f.Names()))
		}
		walked += name + "."
		f = sub
	}
	return nil
}

func (e *Expr) String() string { return e.text }

// Paths lists the members that the expression reads, such as "http.status".
func (e *Expr) Paths() []string { return e.paths }

// Reads says whether the expression reads the member or something in it.
func (e *Expr) Reads(path string) bool {
	return slices.ContainsFunc(e.paths, func(p string) bool {
		return strings.HasPrefix(p, path) && (len(p) == len(path) || p[len(path)] == '.')
	})
}

var machines = sync.Pool{New: func() any { return new(vm.VM) }}

// Eval says whether the expression holds. Where it does not, an error may tell
// why: that a member which it reads is absent, or that it can't be evaluated.
// It may add empty objects to vars for those that are absent.
func (e *Expr) Eval(vars map[string]any) (bool, error) {
	holds, known := e.quickly(vars)
	var err error
	if !known {
		holds, err = e.run(vars)
	}
	if holds {
		return true, nil
	}
	for _, p := range e.paths {
		if _, ok := lookup(vars, p); !ok {
			return false, fmt.Errorf("%s is absent", p)
		}
	}
	if err != nil {
		return false, located(e.text, err)
	}
	return false, nil
}

func (e *Expr) quickly(vars map[string]any) (holds, known bool) {
	if e.quick == nil {
		return false, false
	}
	v, known := e.quick(vars)
	holds, isBool := v.(bool)
	return holds, known && isBool
}

// run runs the program.
func (e *Expr) run(vars map[string]any) (holds bool, err error) {
	for _, name := range e.objects {
		if vars[name] == nil {
			vars[name] = map[string]any{}
		}
	}
	m := machines.Get().(*vm.VM)
	out, err := m.Run(e.program, vars)
	if err != nil {
		return false, err // its stack may be in disorder
	}
	machines.Put(m)
	holds, _ = out.(bool)
	return holds, nil
}

// Saw gives the value of each member that the expression reads; absent ones
// are left out.
func (e *Expr) Saw(vars map[string]any) map[string]any {
	saw := map[string]any{}
	for _, p := range e.paths {
		if v, ok := lookup(vars, p); ok {
			saw[p] = v
		}
	}
	return saw
}

func lookup(vars map[string]any, path string) (any, bool) {
	var v any = vars
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok || v == nil {
			return nil, false
		}
	}
	return v, true
}

// pathsOf finds the members that are read: chains of names from a variable.
func pathsOf(root ast.Node) []string {
	w := &pathWalker{inner: map[ast.Node]bool{}, declared: map[string]bool{}}
	ast.Walk(&root, w)
	var paths []string
	for _, n := range w.nodes {
		if p, ok := path(n); ok && !w.inner[n] && !w.declared[strings.SplitN(p, ".", 2)[0]] && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

type pathWalker struct {
	nodes    []ast.Node
	inner    map[ast.Node]bool // is the beginning of a longer chain, or a function's name
	declared map[string]bool   // by let
}

func (w *pathWalker) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode, *ast.MemberNode:
		w.nodes = append(w.nodes, n)
		if m, ok := n.(*ast.MemberNode); ok {
			if _, named := m.Property.(*ast.StringNode); named {
				w.inner[m.Node] = true
			}
		}
	case *ast.CallNode:
		w.inner[n.Callee] = true
	case *ast.VariableDeclaratorNode:
		w.declared[n.Name] = true
	}
}

func path(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value, true
	case *ast.MemberNode:
		s, ok := n.Property.(*ast.StringNode)
		if !ok {
			return "", false
		}
		head, ok := path(n.Node)
		return head + "." + s.Value, ok
	case *ast.ChainNode:
		return path(n.Node)
	}
	return "", false
}

// Vars decodes the members of a JSON object for Eval. Whole numbers become
// ints, as the compiled code expects.
func Vars(text []byte) (map[string]any, error) {
	v, err := Value(text)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return m, nil
}

// Value decodes a JSON value as Vars does.
func Value(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	return number(v), nil
}

func number(v any) any {
	switch x := v.(type) {
	case json.Number:
		if i, err := strconv.Atoi(string(x)); err == nil {
			return i
		}
		f, _ := x.Float64()
		return f
	case []any:
		for i := range x {
			x[i] = number(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = number(x[k])
		}
	}
	return v
}
