package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
)

// A Silence keeps hooks from hearing of problems for a time.
type Silence struct {
	File     string
	From     time.Time
	Until    time.Time
	When     *expr.Expr // nil: all
	Names    []string
	Hooks    []string
	Incident string
	Reason   string
	By       string
}

// Covers reports whether the silence may concern the hook and the name now;
// its When is left to the caller.
func (s *Silence) Covers(hook, name, incident string, now time.Time) bool {
	return !now.Before(s.From) && now.Before(s.Until) &&
		(s.Incident == "" || s.Incident == incident) &&
		(s.Names == nil || slices.Contains(s.Names, name)) &&
		(s.Hooks == nil || slices.Contains(s.Hooks, hook))
}

// LoadSilences reads the silences in dir, files whose names end in .toml.
// Those that can be read are returned with the error of those that can't.
func LoadSilences(dir string) ([]Silence, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		return nil, err
	}
	var all []Silence
	var errs []error
	for _, path := range paths {
		s, err := loadSilence(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has been removed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, s)
	}
	return all, errors.Join(errs...)
}

func loadSilence(path string) (Silence, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Silence{}, err
	}
	fail := func(line int, err error) (Silence, error) { return Silence{}, &Error{path, line, err} }
	tree, badLine, err := decode(text)
	if err != nil {
		return fail(badLine, err)
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		return fail(0, err)
	}
	var k silenceKeys
	field := SilenceField()
	if err := field.Decode("", raw, &k); err != nil {
		return fail(0, err)
	}
	s := Silence{File: path, From: k.From, Until: k.Until, Names: k.Names, Hooks: k.Hooks, Incident: k.Incident, Reason: k.Reason, By: k.By}
	if k.When != "" {
		if s.When, err = expr.Compile(k.When, catalog.Load().Env()); err != nil {
			return fail(line(places(text), "when"), fmt.Errorf("when: %w", err))
		}
	}
	return s, nil
}
