package config

import (
	"bytes"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"pup/cmd/internal/schema"
)

// An Error is one mistake in a configuration and where it is.
type Error struct {
	File   string
	Line   int    // from 1; 0 when the mistake is the file itself
	Column int    // in characters, from 1
	Text   string // the line itself
	Width  int    // characters that the mistake covers, at least 1
	Msg    string // what is wrong
	Hint   string // what was expected, or ""

	order int // of the file
}

// Error gives the place, the message, the line with a caret below the
// mistake, and the hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Msg)
	if e.Line > 0 {
		text, pad := excerpt(e.Text, e.Column)
		fmt.Fprintf(&b, "\n%5d | %s\n      | %s%s", e.Line, text, pad, strings.Repeat("^", caretWidth(e, text, pad)))
	}
	if e.Hint != "" {
		b.WriteString("\n      = " + e.Hint)
	}
	return b.String()
}

// excerptWidth is how much of a line an error shows, in characters.
const excerptWidth = 100

// excerpt cuts a long line around column and gives the blanks that go before
// the caret. Control characters are shown as U+FFFD: a file may come from
// somebody else.
func excerpt(line string, column int) (text, pad string) {
	rs := []rune(line)
	from := 0
	if len(rs) > excerptWidth && column > excerptWidth*3/4 {
		from = column - excerptWidth/2
	}
	to := min(len(rs), from+excerptWidth)
	for i, r := range rs[from:to] {
		if r != '\t' && !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		text += string(r)
		if from+i < column-1 {
			if r != '\t' {
				r = ' '
			}
			pad += string(r)
		}
	}
	return text, pad
}

func caretWidth(e *Error, text, pad string) int {
	room := utf8.RuneCountInString(text) - utf8.RuneCountInString(pad)
	return max(1, min(e.Width, room))
}

// Errors are all the mistakes of a configuration.
type Errors struct {
	list  []*Error
	more  int // beyond maxErrors
	again int // known ones
	srcs  map[*source]int
	seen  map[mistake]bool
}

type mistake struct {
	at  place
	msg string
}

// maxErrors is how many mistakes are kept; the rest are counted.
const maxErrors = 100

// add records a mistake. One that many targets inherit is recorded once.
func (es *Errors) add(at place, hint, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if es.srcs == nil {
		es.srcs, es.seen = map[*source]int{}, map[mistake]bool{}
	}
	if es.seen[mistake{at, msg}] {
		es.again++
		return
	}
	if len(es.list) >= maxErrors {
		es.more++
		return
	}
	es.seen[mistake{at, msg}] = true
	e := &Error{File: at.src.name, Msg: msg, Hint: hint}
	if _, ok := es.srcs[at.src]; !ok {
		es.srcs[at.src] = len(es.srcs)
	}
	e.order = es.srcs[at.src]
	if at.src.data != nil {
		e.Line, e.Column, e.Text, e.Width = at.locate()
		e.Text = mask(e.Text)
	}
	es.list = append(es.list, e)
}

// line is the number of the line that the place begins on.
func (p place) line() int {
	return 1 + bytes.Count(p.src.data[:min(int(p.start), len(p.src.data))], []byte{'\n'})
}

func (p place) String() string {
	if p.src == nil {
		return "built in"
	}
	return fmt.Sprintf("%s:%d", p.src.name, p.line())
}

func (p place) locate() (line, column int, text string, width int) {
	data := p.src.data
	start := min(int(p.start), len(data))
	first := bytes.LastIndexByte(data[:start], '\n') + 1
	rest := data[first:]
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	rest = bytes.TrimRight(rest, "\r")
	column = 1 + utf8.RuneCount(data[first:start])
	end := max(start, min(int(p.end), first+len(rest)))
	return p.line(), column, string(rest), utf8.RuneCount(data[start:end])
}

// Error lists all mistakes by file and line.
func (es *Errors) Error() string {
	var b strings.Builder
	for i, e := range es.List() {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	if es.more > 0 {
		fmt.Fprintf(&b, "\nand %d more", es.more)
	}
	return b.String()
}

// List gives the mistakes by file, line and column.
func (es *Errors) List() []*Error {
	sort.SliceStable(es.list, func(i, j int) bool {
		a, b := es.list[i], es.list[j]
		if a.order != b.order {
			return a.order < b.order
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return es.list
}

// Credentials that stand in a line where none may stand: values of keys that
// are called so, and passwords in URLs.
var (
	secretValue = regexp.MustCompile(`(?i)(?:pass(?:word|wd|phrase)?|secret\w*|token|credentials?|api_?key|key|cookie|authorization)["']?\s*[=:]\s*("(?:[^"\\]|\\.)*"?|'[^']*'?)`)
	urlPassword = regexp.MustCompile(`://[^/\s"'@:]*:([^/\s"'@]*)@`)
)

// mask hides the credentials in a line, which errors show, and which may end
// in a log. The line keeps its length.
func mask(line string) string {
	b := []byte(line)
	for _, re := range []*regexp.Regexp{secretValue, urlPassword} {
		for _, m := range re.FindAllSubmatchIndex(b, -1) {
			if v := string(b[m[2]:m[3]]); schema.IsReference(strings.Trim(v, `"'`)) {
				continue
			}
			for i := m[2]; i < m[3]; i++ {
				if b[i] != '"' && b[i] != '\'' {
					b[i] = '*'
				}
			}
		}
	}
	return string(b)
}

// hide covers up the place of the last mistake, whose value is a credential.
func (es *Errors) hide() {
	if len(es.list) == 0 {
		return
	}
	e := es.list[len(es.list)-1]
	rs := []rune(e.Text)
	for i := e.Column - 1; i < min(len(rs), e.Column-1+e.Width); i++ {
		if rs[i] != '"' && rs[i] != '\'' {
			rs[i] = '*'
		}
	}
	e.Text = string(rs)
}

// count is the number of mistakes found so far.
func (es *Errors) count() int { return len(es.list) + es.more + es.again }

// err is nil when there are no mistakes.
func (es *Errors) err() error {
	if len(es.list) == 0 {
		return nil
	}
	return es
}
