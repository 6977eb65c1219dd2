package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
)

// Places says where the file of hooks keeps its spool and its silences. Nothing
// else of it is looked at, since who writes a silence may not be who may run
// its hooks.
func Places(file string) (spool, silences string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	tree, line, err := decode(text)
	if err != nil {
		return "", "", &Error{file, line, err}
	}
	spool, _ = tree["spool"].(string)
	silences, _ = tree["silences"].(string)
	if silences == "" {
		return "", "", &Error{file, 0, errors.New(`it names no directory of silences; add silences = "DIR"`)}
	}
	return spool, silences, nil
}

// SetWhen compiles the expression of a silence.
func (s *Silence) SetWhen(text string) (err error) {
	s.When, err = expr.Compile(text, catalog.Load().Env())
	return err
}

// WriteSilence writes the silence to its File in dir, in the place of one that
// is there. A reader sees it whole or not at all.
func WriteSilence(dir string, s *Silence) error {
	if !silenceForm(s.File) {
		return fmt.Errorf("%.80q can not name a silence; want NAME.toml, with no slash in it", s.File)
	}
	values := map[string]any{"until": s.Until.UTC().Truncate(time.Second)}
	put := func(key string, value any, given bool) {
		if given {
			values[key] = value
		}
	}
	put("from", s.From.UTC().Truncate(time.Second), !s.From.IsZero())
	put("names", s.Names, s.Names != nil)
	put("hooks", s.Hooks, s.Hooks != nil)
	put("incident", s.Incident, s.Incident != "")
	put("reason", s.Reason, s.Reason != "")
	put("by", s.By, s.By != "")
	if s.When != nil {
		values["when"] = s.When.String()
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(values); err != nil {
		return fmt.Errorf("write a silence: %w", err)
	}
	// Each writer has a file of its own, that no reader looks at.
	f, err := os.CreateTemp(dir, s.File+".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, s.File))
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // it is the first error that counts
	}
	return err
}

// RemoveSilence removes a silence, by the name of its file.
func RemoveSilence(dir, file string) error {
	if !silenceForm(file) {
		return fmt.Errorf("%.80q is no name of a silence; pup-route silence list shows them", file)
	}
	return os.Remove(filepath.Join(dir, file))
}

// silenceForm reports whether a silence may have the name, which may come from
// a stranger: it must lead nowhere else.
func silenceForm(file string) bool {
	return len(file) < 100 && filepath.Ext(file) == ".toml" && file[0] != '.' && !strings.ContainsAny(file, "/\x00")
}

// State says whether a silence is pending, active or expired.
func (s *Silence) State(now time.Time) string {
	switch {
	case !now.Before(s.Until):
		return "expired"
	case now.Before(s.From):
		return "pending"
	}
	return "active"
}

// silenceLine is a silence as pup-route silence list writes it.
type silenceLine struct {
	File     string    `json:"file"`
	State    string    `json:"state"`
	From     time.Time `json:"from,omitzero"`
	Until    time.Time `json:"until"`
	When     string    `json:"when,omitempty"`
	Names    []string  `json:"names,omitempty"`
	Hooks    []string  `json:"hooks,omitempty"`
	Incident string    `json:"incident,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`
}

// Line returns the silence as a line of JSON.
func (s *Silence) Line(now time.Time) ([]byte, error) {
	l := silenceLine{File: filepath.Base(s.File), State: s.State(now), From: s.From.UTC(), Until: s.Until.UTC(), Names: s.Names, Hooks: s.Hooks, Incident: s.Incident, Reason: s.Reason, By: s.By}
	if s.When != nil {
		l.When = s.When.String()
	}
	return json.Marshal(l)
}
