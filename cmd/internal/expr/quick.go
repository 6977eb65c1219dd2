package expr

import (
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A quick evaluates an expression, or a part of one, without the machine that
// can do all of the language: most expressions only compare a member with a
// constant, and for them the machine takes longer to start than to compare. Ok
// is false where it does not know, and the machine has to be asked.
type quick func(vars map[string]any) (v any, ok bool)

// quickOf gives nil for what it does not understand. Objects are the members
// that are empty where they are absent.
func quickOf(node ast.Node, objects []string) quick {
	switch n := node.(type) {
	case *ast.BoolNode:
		return quickly(n.Value)
	case *ast.IntegerNode:
		return quickly(n.Value)
	case *ast.FloatNode:
		return quickly(n.Value)
	case *ast.StringNode:
		return quickly(n.Value)
	case *ast.IdentifierNode, *ast.MemberNode:
		return quickMember(n, objects)
	case *ast.UnaryNode:
		if x := quickOf(n.Node, objects); x != nil && (n.Operator == "not" || n.Operator == "!") {
			return func(vars map[string]any) (any, bool) {
				v, ok := x(vars)
				b, isBool := v.(bool)
				return !b, ok && isBool
			}
		}
	case *ast.BinaryNode:
		left, right := quickOf(n.Left, objects), quickOf(n.Right, objects)
		if left == nil || right == nil {
			return nil
		}
		switch n.Operator {
		case "and", "&&":
			return quickLogic(left, right, false)
		case "or", "||":
			return quickLogic(left, right, true)
		case "??":
			return func(vars map[string]any) (any, bool) {
				if v, ok := left(vars); !ok || v != nil {
					return v, ok
				}
				return right(vars)
			}
		case "==", "!=", "<", "<=", ">", ">=", "contains", "startsWith", "endsWith":
			return quickComparison(n, left, right)
		}
	}
	return nil
}

func quickly(v any) quick { return func(map[string]any) (any, bool) { return v, true } }

// quickMember looks up a chain of names.
func quickMember(n ast.Node, objects []string) quick {
	p, ok := path(n)
	if !ok || optional(n) {
		return nil
	}
	outer, inner, nested := strings.Cut(p, ".")
	var names []string
	if nested {
		names = strings.Split(inner, ".")
	}
	empty := false
	for _, o := range objects {
		empty = empty || o == outer
	}
	return func(vars map[string]any) (any, bool) {
		v, known := vars[outer], true
		if v == nil && empty {
			return nil, len(names) == 1
		}
		for _, name := range names {
			m, isMap := v.(map[string]any)
			if known = isMap; !known {
				break
			}
			v = m[name]
		}
		return v, known
	}
}

// optional says whether a chain of names may end early ("?."), or has a name
// that could be taken for several.
func optional(n ast.Node) bool {
	for {
		m, ok := n.(*ast.MemberNode)
		if !ok {
			return false
		}
		if s, ok := m.Property.(*ast.StringNode); m.Optional || m.Method || !ok || strings.Contains(s.Value, ".") {
			return true
		}
		n = m.Node
	}
}

// quickLogic evaluates the right side only if the left one does not decide.
func quickLogic(left, right quick, decides bool) quick {
	return func(vars map[string]any) (any, bool) {
		v, ok := left(vars)
		b, isBool := v.(bool)
		if !ok || !isBool {
			return nil, false
		}
		if b == decides {
			return v, true
		}
		v, ok = right(vars)
		_, isBool = v.(bool)
		return v, ok && isBool
	}
}

// quickComparison knows the types that members have. With an absent member no
// comparison holds (see absentees); the absence of anything else is left to
// the machine.
func quickComparison(n *ast.BinaryNode, left, right quick) quick {
	named := func(n ast.Node) bool {
		switch n.(type) {
		case *ast.IdentifierNode, *ast.MemberNode:
			return true
		}
		return false
	}
	leftNamed, rightNamed := named(n.Left), named(n.Right)
	op := n.Operator
	return func(vars map[string]any) (any, bool) {
		l, ok := left(vars)
		if !ok {
			return nil, false
		}
		if l == nil {
			return false, leftNamed
		}
		r, ok := right(vars)
		if !ok {
			return nil, false
		}
		if r == nil {
			return false, rightNamed
		}
		switch x := l.(type) {
		case int:
			switch y := r.(type) {
			case int:
				return ordered(op, x, y)
			case float64:
				return ordered(op, float64(x), y)
			}
		case float64:
			switch y := r.(type) {
			case int:
				return ordered(op, x, float64(y))
			case float64:
				return ordered(op, x, y)
			}
		case string:
			if y, ok := r.(string); ok {
				return texts(op, x, y)
			}
		case bool:
			if y, ok := r.(bool); ok && (op == "==" || op == "!=") {
				return (x == y) == (op == "=="), true
			}
		}
		return nil, false
	}
}

func ordered[T int | float64 | string](op string, x, y T) (holds, ok bool) {
	switch op {
	case "==":
		return x == y, true
	case "!=":
		return x != y, true
	case "<":
		return x < y, true
	case "<=":
		return x <= y, true
	case ">":
		return x > y, true
	case ">=":
		return x >= y, true
	}
	return false, false
}

func texts(op, x, y string) (holds, ok bool) {
	switch op {
	case "contains":
		return strings.Contains(x, y), true
	case "startsWith":
		return strings.HasPrefix(x, y), true
	case "endsWith":
		return strings.HasSuffix(x, y), true
	}
	return ordered(op, x, y)
}
