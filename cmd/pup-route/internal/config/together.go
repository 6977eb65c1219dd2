package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/pup-route/internal/state"
)

// share reads how many of several are enough: a number or a word.
func share(raw json.RawMessage, absent state.Share) (state.Share, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return absent, nil
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return state.Share{}, err
		}
	}
	s, err := state.ParseShare(text)
	if err != nil {
		return s, fmt.Errorf("%.40q: %w", text, err)
	}
	return s, nil
}

// quorum reads the key quorum into a rule.
func quorum(r *state.Rule, raw json.RawMessage) (err error) {
	r.Quorum, err = share(raw, state.Share{})
	if err == nil && r.Always && !r.Quorum.None() {
		err = errors.New("does not go with always, which is for the result of each vantage")
	}
	return err
}

// members reads the key members into a rule.
func members(r *state.Rule, k *membersKeys) error {
	if k == nil {
		return nil
	}
	if (k.Names == nil) == (k.Same == "") {
		return errors.New("want names or same, one of them")
	}
	if err := states(r); err != nil {
		return err
	}
	t := &state.Together{Names: k.Names}
	if k.Same != "" {
		t.Same = []string{k.Same}
	}
	r.Together = t
	return together(t, k.AtLeast, state.Share{Percent: 100})
}

// commonCause reads the key common_cause into a rule.
func commonCause(r *state.Rule, k *causeKeys) error {
	switch {
	case k == nil:
		return nil
	case r.Together != nil:
		return errors.New("does not go with members; make another hook")
	case len(k.Same) == 0:
		return errors.New("same is empty")
	}
	if err := states(r); err != nil {
		return err
	}
	t := &state.Together{Same: k.Same, Cause: true, Within: time.Duration(k.Within)}
	if t.Within == 0 {
		t.Within = time.Minute
	}
	r.Together = t
	return together(t, k.AtLeast, state.Share{Count: 3})
}

// together reads what members and common_cause have alike.
func together(t *state.Together, atLeast json.RawMessage, absent state.Share) (err error) {
	if t.AtLeast, err = share(atLeast, absent); err != nil {
		return fmt.Errorf("at_least: %w", err)
	}
	if n := len(t.Names); n > 0 && t.AtLeast.Of(n) > n {
		return fmt.Errorf("at_least: there are only %d names", n)
	}
	if t.Cause && t.Within < 0 {
		return errors.New("within: must be more than zero")
	}
	if t.Cause && t.AtLeast.Count == 1 {
		return errors.New("at_least: one name has nothing in common with others; want 2 or more")
	}
	for _, text := range t.Same {
		member, _, err := state.ParsePath(text)
		if err == nil {
			_, err = expr.Compile(member+" == "+member, catalog.Load().Env())
		}
		if err != nil {
			return fmt.Errorf("same: %.80q: %w", text, err)
		}
	}
	return nil
}

// states reports an error for a rule that is not about statuses alone: only
// those can be told of several names at once.
func states(r *state.Rule) error {
	if r.Always || r.Change || len(r.Transitions) > 0 || r.Becomes.Has(state.Up) || !r.Becomes.Has(state.Down) && !r.Becomes.Has(state.Degraded) &&
		!r.Becomes.Has(state.Unknown) && !r.Becomes.Has(state.Stale) {
		return errors.New(`needs an on of statuses other than up, such as ["down", "recovered"]`)
	}
	return nil
}
