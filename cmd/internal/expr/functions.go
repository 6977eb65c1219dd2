package expr

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
)

// A Function is one that expressions have beyond those of expr-lang.
type Function struct {
	Name, Usage, Doc string
	call             func(args ...any) (any, error)
	types            []any
}

// Functions lists them, for the manual.
var Functions = []Function{
	{
		"cidr", "cidr(x, '10.0.0.0/8', …)",
		"every address in x, a string or a list, lies in one of the networks; false for an empty list",
		inNetworks,
		[]any{new(func(any, string) bool), new(func(any, string, string) bool), new(func(any, string, string, string) bool), new(func(any, string, string, string, string) bool)},
	},
	{
		"same", "same(x, ['a', 'b'])",
		"the lists hold the same elements, whatever their order; how often one comes counts",
		func(args ...any) (any, error) { return sameSet(args[0], args[1]) },
		[]any{new(func(any, any) bool)},
	},
	{
		"subset", "subset(x, ['a', 'b'])",
		"every element of the first list is in the second",
		func(args ...any) (any, error) { return subset(args[0], args[1]) },
		[]any{new(func(any, any) bool)},
	},
	{
		"version", "version(x, '>= 7.2, < 9')",
		"the version in x, numbers with dots, meets all the conditions; operators are = != < <= > >=",
		meetsVersion,
		[]any{new(func(any, string) bool)},
	},
}

func functions() []expr.Option {
	// a result says the same whenever it is judged, so there is no clock
	opts := []expr.Option{expr.DisableBuiltin("now")}
	for _, f := range Functions {
		opts = append(opts, expr.Function(f.Name, f.call, f.types...))
	}
	return opts
}

func list(v any) ([]any, error) {
	switch x := v.(type) {
	case nil:
		return nil, errors.New("is absent")
	case []any:
		return x, nil
	case []string:
		l := make([]any, len(x))
		for i := range x {
			l[i] = x[i]
		}
		return l, nil
	}
	return []any{v}, nil
}

func inNetworks(args ...any) (any, error) {
	var nets []netip.Prefix
	for _, a := range args[1:] {
		n, err := ParsePrefix(a.(string))
		if err != nil {
			return false, err
		}
		nets = append(nets, n)
	}
	addrs, err := list(args[0])
	if err != nil {
		return false, err
	}
	for _, a := range addrs {
		s := fmt.Sprint(a)
		ip, err := netip.ParseAddr(s)
		if err != nil {
			ap, err := netip.ParseAddrPort(s) // as the member "address" has it
			if err != nil {
				return false, fmt.Errorf("%.60q is not an IP address", s)
			}
			ip = ap.Addr()
		}
		if ip = ip.Unmap().WithZone(""); !contains(nets, ip) {
			return false, nil
		}
	}
	return len(addrs) > 0, nil
}

func contains(nets []netip.Prefix, ip netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// ParsePrefix reads a network such as 10.0.0.0/8, or a single address.
func ParsePrefix(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Prefix(ip.BitLen())
	}
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return n, fmt.Errorf("%.60q is neither a network such as 10.0.0.0/8 nor an address", s)
	}
	return n.Masked(), nil
}

func counts(v any) (map[string]int, error) {
	l, err := list(v)
	m := make(map[string]int, len(l))
	for _, x := range l {
		m[fmt.Sprint(x)]++
	}
	return m, err
}

func sameSet(a, b any) (bool, error) {
	x, err := counts(a)
	if err != nil {
		return false, err
	}
	y, err := counts(b)
	if err != nil || len(x) != len(y) {
		return false, err
	}
	for k, n := range x {
		if y[k] != n {
			return false, nil
		}
	}
	return true, nil
}

func subset(a, b any) (bool, error) {
	x, err := counts(a)
	if err != nil {
		return false, err
	}
	y, err := counts(b)
	if err != nil {
		return false, err
	}
	for k := range x {
		if y[k] == 0 {
			return false, nil
		}
	}
	return true, nil
}

func meetsVersion(args ...any) (any, error) {
	got, ok := args[0].(string)
	if !ok {
		return false, fmt.Errorf("%v is not a version", args[0])
	}
	have, err := parseVersion(got)
	if err != nil {
		return false, err
	}
	for cond := range strings.SplitSeq(args[1].(string), ",") {
		cond = strings.TrimSpace(cond)
		num := strings.TrimLeft(cond, "<>=! ")
		op := strings.TrimSpace(cond[:len(cond)-len(num)])
		want, err := parseVersion(num)
		if err != nil {
			return false, err
		}
		c := compareVersions(have, want)
		holds, known := map[string]bool{
			"": c == 0, "=": c == 0, "==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0,
		}[op]
		if !known {
			return false, fmt.Errorf("%.20q is not a comparison of versions", op)
		}
		if !holds {
			return false, nil
		}
	}
	return true, nil
}

// parseVersion finds the first run of numbers with dots: "nginx/1.22.1" is 1.22.1.
func parseVersion(s string) ([]int, error) {
	start := strings.IndexAny(s, "0123456789")
	if start < 0 {
		return nil, fmt.Errorf("there is no version in %.60q", s)
	}
	var v []int
	for part := range strings.SplitSeq(s[start:], ".") {
		end := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		if v = append(v, n); end < len(part) {
			break
		}
	}
	return v, nil
}

func compareVersions(a, b []int) int {
	for i := range max(len(a), len(b)) {
		x, y := 0, 0
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return x - y
		}
	}
	return 0
}
