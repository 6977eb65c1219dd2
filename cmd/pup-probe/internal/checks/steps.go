package checks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// talkOptions say what to send and what must come. They are shared by checks
// that speak no protocol of their own.
type talkOptions struct {
	Send        string `json:"send" doc:"Text to send, as it is: line ends must be written, as \\r\\n."`
	SendHex     string `json:"send_hex" doc:"Bytes to send, in hex; blanks are ignored."`
	Expect      string `json:"expect" doc:"Text that must come."`
	ExpectRegex string `json:"expect_regex" doc:"A regular expression (RE2) that what comes must match; its first group becomes a fact."`
	ExpectHex   string `json:"expect_hex" doc:"Bytes that must come, in hex."`
}

// message gives the bytes to send.
func (o *talkOptions) message() ([]byte, error) {
	if o.SendHex == "" {
		return []byte(o.Send), nil
	}
	if o.Send != "" {
		return nil, errors.New("send and send_hex exclude one another")
	}
	b, err := fromHex(o.SendHex)
	if err != nil {
		return nil, fmt.Errorf("send_hex: %w", err)
	}
	return b, nil
}

func fromHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, fmt.Errorf("%.40q is not hex", s)
	}
	return b, nil
}

// A pattern is what must come. The zero pattern is nothing.
type pattern struct {
	text  []byte
	regex *regexp.Regexp
	shown string
}

// pattern gives what must come.
func (o *talkOptions) pattern() (*pattern, error) {
	p := &pattern{}
	n := 0
	for _, s := range []string{o.Expect, o.ExpectRegex, o.ExpectHex} {
		if s != "" {
			n++
			p.shown = ndjson.Cut(s, 80)
		}
	}
	if n > 1 {
		return nil, errors.New("expect, expect_regex and expect_hex exclude one another")
	}
	var err error
	switch {
	case o.Expect != "":
		p.text = []byte(o.Expect)
	case o.ExpectHex != "":
		if p.text, err = fromHex(o.ExpectHex); err != nil {
			return nil, fmt.Errorf("expect_hex: %w", err)
		}
	case o.ExpectRegex != "":
		if p.regex, err = regexp.Compile(o.ExpectRegex); err != nil {
			return nil, fmt.Errorf("expect_regex: %w", err)
		}
	}
	return p, nil
}

func (p *pattern) nothing() bool { return p.text == nil && p.regex == nil }

// find looks for the pattern, and gives where it ends and what its first group
// has caught.
func (p *pattern) find(b []byte) (end int, caught string, ok bool) {
	if p.regex == nil {
		i := bytes.Index(b, p.text)
		return i + len(p.text), "", i >= 0
	}
	m := p.regex.FindSubmatchIndex(b)
	if m == nil {
		return 0, "", false
	}
	if len(m) > 3 && m[2] >= 0 {
		caught = ndjson.Cut(string(b[m[2]:m[3]]), maxShown)
	}
	return m[1], caught, true
}

// maxShown bounds what is shown of the peer's bytes in a fact.
const maxShown = 256

// shown gives the beginning of what the peer has sent.
func shown(b []byte) string { return ndjson.Cut(string(b[:min(len(b), 4*maxShown)]), maxShown) }

// compiled are a step's bytes and pattern.
type compiled struct {
	send []byte
	want *pattern
}

func (o *talkOptions) compile(where string) (compiled, error) {
	send, err := o.message()
	if err != nil {
		return compiled{}, probe.Failf(wire.BadOptions, "%s: %w", where, err)
	}
	want, err := o.pattern()
	if err != nil {
		return compiled{}, probe.Failf(wire.BadOptions, "%s: %w", where, err)
	}
	return compiled{send, want}, nil
}
