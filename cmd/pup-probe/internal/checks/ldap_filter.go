package checks

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ldapFilter encodes a filter, whose text form is that of RFC 4515.
func ldapFilter(s string) ([]byte, error) {
	if !strings.HasPrefix(s, "(") {
		s = "(" + s + ")"
	}
	b, rest, err := ldapFilterOne(s, 0)
	if err == nil && rest != "" {
		err = fmt.Errorf("%.40q follows its end", rest)
	}
	if err != nil {
		return nil, fmt.Errorf("filter %.80q: %w", s, err)
	}
	return b, nil
}

// ldapMaxDepth bounds the nesting of a filter.
const ldapMaxDepth = 32

func ldapFilterOne(s string, depth int) (b []byte, rest string, err error) {
	if depth > ldapMaxDepth {
		return nil, "", errors.New("is nested too deeply")
	}
	if s = strings.TrimLeft(s, " "); len(s) < 3 || s[0] != '(' {
		return nil, "", fmt.Errorf("want (, got %.20q", s)
	}
	tags := map[byte]byte{'&': 0xa0, '|': 0xa1, '!': 0xa2}
	tag, several := tags[s[1]]
	if !several {
		end := strings.IndexByte(s, ')')
		if end < 0 {
			return nil, "", errors.New("a ) is missing")
		}
		b, err = ldapFilterItem(s[1:end])
		return b, s[end+1:], err
	}
	var parts [][]byte
	for s = strings.TrimLeft(s[2:], " "); strings.HasPrefix(s, "("); s = strings.TrimLeft(s, " ") {
		var part []byte
		if part, s, err = ldapFilterOne(s, depth+1); err != nil {
			return nil, "", err
		}
		parts = append(parts, part)
	}
	switch {
	case !strings.HasPrefix(s, ")"):
		return nil, "", fmt.Errorf("want ), got %.20q", s)
	case tag == 0xa2 && len(parts) != 1:
		return nil, "", errors.New("! wants one filter behind it")
	}
	return ldapTLV(tag, parts...), s[1:], nil
}

// ldapFilterItem encodes a comparison: "cn=A*", "n>=3", "mail=*".
func ldapFilterItem(s string) ([]byte, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" || strings.ContainsAny(name, "(*\\") {
		return nil, fmt.Errorf("%.40q is no comparison", s)
	}
	if strings.ContainsRune(value, '(') {
		return nil, fmt.Errorf("%.40q: write a parenthesis as \\28", s)
	}
	for suffix, tag := range map[string]byte{">": 0xa5, "<": 0xa6, "~": 0xa8} {
		if attr, ok := strings.CutSuffix(name, suffix); ok {
			v, err := ldapUnescape(value)
			return ldapTLV(tag, ldapText(attr), ldapText(v)), err
		}
	}
	switch parts := strings.Split(value, "*"); {
	case value == "*":
		return ldapTLV(0x87, []byte(name)), nil
	case len(parts) == 1:
		v, err := ldapUnescape(value)
		return ldapTLV(0xa3, ldapText(name), ldapText(v)), err
	default:
		return ldapSubstrings(name, parts)
	}
}

func ldapSubstrings(name string, parts []string) ([]byte, error) {
	var list [][]byte
	for i, part := range parts {
		v, err := ldapUnescape(part)
		if err != nil {
			return nil, err
		}
		switch {
		case v == "":
		case i == 0:
			list = append(list, ldapTLV(0x80, []byte(v)))
		case i == len(parts)-1:
			list = append(list, ldapTLV(0x82, []byte(v)))
		default:
			list = append(list, ldapTLV(0x81, []byte(v)))
		}
	}
	if list == nil {
		return nil, errors.New("nothing stands between the asterisks")
	}
	return ldapTLV(0xa4, ldapText(name), ldapTLV(ldapSequence, list...)), nil
}

// ldapUnescape reads the escapes of a value: a backslash and two hex digits.
func ldapUnescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		x, err := hex.DecodeString(s[i+1 : min(len(s), i+3)])
		if err != nil || len(x) != 1 {
			return "", fmt.Errorf("%.40q: want two hex digits behind a backslash", s)
		}
		b.WriteByte(x[0])
		i += 2
	}
	return b.String(), nil
}
