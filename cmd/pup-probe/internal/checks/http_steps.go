package checks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pup/cmd/internal/expr"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// prepareSteps checks all steps before the first request is sent.
func (s *httpSession) prepareSteps() error {
	for i := range s.opt.Steps {
		step, path := &s.opt.Steps[i], fmt.Sprintf("http.steps[%d]", i)
		if err := step.check(path); err != nil {
			return err
		}
		var list []*expr.Expr
		for _, text := range step.Expect {
			e, err := expr.Compile(text, s.p.URL.Check.Env())
			if err != nil {
				return probe.Failf(wire.BadOptions, "%s.expect: %w", path, err)
			}
			list = append(list, e)
		}
		s.expects = append(s.expects, list)
		for name, what := range step.Capture {
			if err := httpCheckCapture(what); err != nil {
				return probe.Failf(wire.BadOptions, "%s.capture.%.80s: %w", path, name, err)
			}
		}
		if _, err := s.base.Parse(httpReference().ReplaceAllString(step.URL, "x")); err != nil {
			return probe.Failf(wire.BadOptions, "%s.url: %.200q is no URL", path, step.URL)
		}
	}
	return nil
}

func httpCheckCapture(what string) error {
	kind, arg, _ := strings.Cut(what, ":")
	switch {
	case kind == "regex":
		re, err := regexp.Compile(arg)
		if err == nil && re.NumSubexp() < 1 {
			err = errors.New("the regular expression has no group")
		}
		return err
	case arg == "" || !slices.Contains([]string{"json", "header", "cookie"}, kind):
		return fmt.Errorf("got %.80q, want json:PATH, regex:EXPRESSION, header:NAME or cookie:NAME", what)
	}
	return nil
}

// reads says whether a fact is going to be judged or captured from.
func (s *httpSession) reads(fact string) bool {
	if s.p.Reads(fact) {
		return true
	}
	for _, list := range s.expects {
		if slices.ContainsFunc(list, func(e *expr.Expr) bool { return e.Reads(fact) }) {
			return true
		}
	}
	return fact == "http.json" && s.captures("json:") || fact == "http.headers" && s.captures("header:")
}

func (s *httpSession) readsBody() bool {
	return s.reads("http.body") || s.reads("http.json") || s.captures("regex:")
}

func (s *httpSession) captures(kind string) bool {
	return slices.ContainsFunc(s.opt.Steps, func(st httpStep) bool {
		for _, what := range st.Capture {
			if strings.HasPrefix(what, kind) {
				return true
			}
		}
		return false
	})
}

// steps makes the steps one after the other.
func (s *httpSession) steps(ctx context.Context) error {
	s.captured = map[string]string{}
	for i := range s.opt.Steps {
		if err := s.step(ctx, i); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (s *httpSession) step(ctx context.Context, i int) error {
	step, start := &s.opt.Steps[i], time.Now()
	text, err := s.fill(step.URL, httpEscape)
	if err != nil {
		return err
	}
	u, err := s.base.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return s.stopped("%.200q is no URL that can be asked for", step.URL)
	}
	u = httpBare(u)
	r, err := s.fillRequest(&step.httpRequest)
	if err != nil {
		return err
	}
	err = s.follow(ctx, u, r)
	at := s.facts.URL
	if at == "" {
		at = s.base.String()
	}
	s.facts.Steps = append(s.facts.Steps, httpStepFact{at, s.facts.Status, new(wire.MS(time.Since(start)))})
	if err != nil {
		return err
	}
	s.p.Phase(wire.Verify)
	if err := s.judge(i); err != nil {
		return err
	}
	return s.capture(u, step.Capture)
}

// judge holds a step to what it expects.
func (s *httpSession) judge(i int) error {
	vars := map[string]any{"http": schema.Values(s.facts, nil)}
	if t := s.p.TLS(); t != nil {
		vars["tls"] = schema.Values(t, nil)
	}
	status := false
	for _, e := range s.expects[i] {
		status = status || e.Reads("http.status")
		ok, err := e.Eval(vars)
		switch {
		case err != nil:
			return probe.Failf(wire.Mismatch, "expect %s: %w", e, err)
		case !ok:
			return probe.Failf(wire.Mismatch, "expect %s: does not hold, status is %d", e, s.facts.Status)
		}
	}
	last := i == len(s.opt.Steps)-1 // judged by the target's own expressions
	if ok := s.facts.Status >= 200 && s.facts.Status < 300; !status && !ok && !last {
		if err := s.refused(); err != nil {
			return err
		}
		return probe.Failf(wire.Mismatch, "status is %d, want 200 to 299", s.facts.Status)
	}
	return nil
}

// capture takes values from the response.
func (s *httpSession) capture(u *url.URL, captures map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(captures)) {
		kind, arg, _ := strings.Cut(captures[name], ":")
		value, ok := "", false
		switch kind {
		case "json":
			value, ok = httpJSONText(s.facts.JSON, arg)
		case "regex":
			if m := regexp.MustCompile(arg).FindStringSubmatch(s.facts.Body); m != nil {
				value, ok = m[1], true
			}
		case "header":
			value, ok = s.facts.Headers[strings.ToLower(arg)]
		case "cookie":
			if s.jar != nil {
				for _, c := range s.jar.Cookies(u) {
					if c.Name == arg {
						value, ok = c.Value, true
					}
				}
			}
		}
		if !ok {
			return probe.Failf(wire.Mismatch, "capture %.80s: the response has no %.200q", name, captures[name])
		}
		s.captured[name] = value
	}
	return nil
}

// httpJSONText gives the value at a path such as "data.items[0].id" as text.
func httpJSONText(v any, path string) (string, bool) {
	for part := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(x) {
				return "", false
			}
			v = x[i]
		default:
			return "", false
		}
	}
	switch v.(type) {
	case string, int, float64, bool:
		return fmt.Sprint(v), true
	}
	return "", false
}

var httpReference = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\$\{capture:([^}]*)\}`) })

// fill puts captured values into text. Text that is a reference alone becomes
// the value as it is.
func (s *httpSession) fill(text string, escape func(string) string) (string, error) {
	if !strings.Contains(text, "${capture:") {
		return text, nil
	}
	var missing error
	alone := httpReference().FindString(text) == text
	filled := httpReference().ReplaceAllStringFunc(text, func(ref string) string {
		name := httpReference().FindStringSubmatch(ref)[1]
		v, ok := s.captured[name]
		switch {
		case !ok:
			missing = probe.Failf(wire.BadOptions, "%.80s: no earlier step captures it", ref)
		case escape != nil && !alone:
			return escape(v)
		}
		return v
	})
	return filled, missing
}

// httpEscape escapes a value for any place in a URL.
func httpEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func (s *httpSession) fillRequest(r *httpRequest) (*httpRequest, error) {
	filled := *r
	var errs []error
	text := func(t string) string {
		t, err := s.fill(t, nil)
		errs = append(errs, err)
		return t
	}
	table := func(m map[string]string) map[string]string {
		if m == nil {
			return nil
		}
		out := make(map[string]string, len(m))
		for k, v := range m {
			out[k] = text(v)
		}
		return out
	}
	filled.Body, filled.Headers, filled.Form = text(r.Body), table(r.Headers), table(r.Form)
	return &filled, errors.Join(errs...)
}
