package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// parseFlag reads --on STATUS=COMMAND, the i-th of them.
func parseFlag(flag string, i int) (hookKeys, error) {
	k := hookDefaults
	on, command, ok := strings.Cut(flag, "=")
	if !ok || on == "" {
		return k, errors.New("want STATUS=COMMAND, such as down=./page")
	}
	k.On = strings.Split(on, ",")
	argv, err := Split(command)
	if err != nil {
		return k, err
	}
	if len(argv) == 0 {
		return k, errors.New("there is no command behind the =")
	}
	k.Command = argv
	k.Name = fmt.Sprintf("on%d-%s", i+1, plain(filepath.Base(argv[0])))
	return k, nil
}

// plain makes a name of a file name.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
			return c
		}
		return '_'
	}, s)
	return s[:min(len(s), 56)]
}

// Split splits a command into words as a POSIX shell would, but expands
// nothing. What only a shell could do is refused, not passed on in silence.
func Split(s string) ([]string, error) {
	const (
		bare = iota
		single
		double
	)
	var words []string
	var word strings.Builder
	in, started := bare, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case in == single:
			if c == '\'' {
				in = bare
			} else {
				word.WriteByte(c)
			}
		case c == '\\' && i+1 < len(s) && (in == bare || strings.IndexByte("$`\"\\\n", s[i+1]) >= 0):
			i++
			if s[i] != '\n' {
				word.WriteByte(s[i])
				started = true
			}
		case c == '\\' && in == bare:
			return nil, errors.New("nothing stands behind the last backslash")
		case in == double && c == '"':
			in = bare
		case c == '$' || c == '`':
			return nil, fmt.Errorf("%q is for a shell, and none runs the command; quote it with '…', or run sh -c '…'", string(c))
		case in == double:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			in, started = single, true
			if c == '"' {
				in = double
			}
		case c == ' ' || c == '\t' || c == '\n':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case strings.IndexByte("|&;<>()", c) >= 0:
			return nil, fmt.Errorf("%q is for a shell, and none runs the command; quote it with '…', or run sh -c '…'", string(c))
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if in != bare {
		return nil, errors.New("a quote is not closed")
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}
