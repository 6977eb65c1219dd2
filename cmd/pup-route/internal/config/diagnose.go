package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/state"
)

// maxDiagnoses bounds what is found of one name.
const maxDiagnoses = 8

type diagnoseKeys struct {
	Name    string            `json:"name" required:"true" doc:"Its name in events, and that of no hook: letters, digits, dot, dash and underscore."`
	On      []string          `json:"on" doc:"The statuses to run it for: degraded, down, unknown."`
	When    string            `json:"when" doc:"An expression over the result, as in expect. It is not run for other results."`
	Command []string          `json:"command" required:"true" doc:"The program and its arguments, as of a hook. It gets an event called diagnose; what it prints is attached to the events of the problem."`
	Input   string            `json:"input" enum:"stdin,file" doc:"How it gets the event, as of a hook."`
	Timeout wire.Duration     `json:"timeout" doc:"The longest that it may take."`
	Grace   wire.Duration     `json:"grace" doc:"The time between SIGTERM and SIGKILL."`
	Env     map[string]string `json:"env" doc:"Environment variables for it."`
	User    string            `json:"user" doc:"Whom it runs as, as of a hook."`
	Jobs    int               `json:"jobs" min:"1" max:"1000" doc:"How many of its runs may go on at once. Others wait, and are not run if the name is up by then."`
	Sandbox sandboxKeys       `json:"sandbox" doc:"What it may do, as of a hook."`
	Enabled bool              `json:"enabled" doc:"false: it is checked, but never run."`
}

var diagnoseDefaults = diagnoseKeys{
	On:      []string{"down"},
	Input:   hookDefaults.Input,
	Timeout: wire.Duration(10 * seconds),
	Grace:   wire.Duration(seconds),
	Jobs:    hookDefaults.Jobs,
	Sandbox: hookDefaults.Sandbox,
	Enabled: true,
}

// DiagnoseField describes a diagnose command, for the manual.
func DiagnoseField() schema.Field { return schema.Of(diagnoseDefaults) }

// loadDiagnoses adds the diagnose commands of a file. Each is checked as a
// hook is.
func (c *Config) loadDiagnoses(file string, parts []json.RawMessage, lines map[string]int, o Options, names map[string]string) (errs []error) {
	at := func(path string, err error) { errs = append(errs, &Error{file, line(lines, path), err}) }
	field := DiagnoseField()
	for i, part := range parts {
		path := fmt.Sprintf("diagnose[%d]", i)
		d := diagnoseDefaults
		if err := field.Decode(path, part, &d); err != nil {
			at(path, err)
			continue
		}
		if len(c.Diagnoses) == maxDiagnoses {
			at(path, fmt.Errorf("there are more than %d diagnose commands; have one run the others", maxDiagnoses))
			break
		}
		k := hookDefaults
		k.Name, k.On, k.When, k.Command, k.Input, k.Timeout, k.Grace = d.Name, d.On, d.When, d.Command, d.Input, d.Timeout, d.Grace
		k.Env, k.User, k.Jobs, k.Sandbox, k.Enabled = d.Env, d.User, d.Jobs, d.Sandbox, d.Enabled
		checked := &Config{}
		for _, err := range checked.add(k, filepath.Dir(file), fmt.Sprintf("%s:%d", file, line(lines, path)), o, names) {
			in := path
			if ke, ok := errors.AsType[*keyError](err); ok {
				in = path + "." + ke.key
			}
			at(in, err)
		}
		for _, h := range checked.Hooks {
			if !statusesOnly(&h.Rule) {
				at(path+".on", errors.New("on: a diagnose command runs for degraded, down and unknown only"))
				continue
			}
			c.Diagnoses = append(c.Diagnoses, h)
		}
	}
	return errs
}

// statusesOnly reports whether a rule names problems that a result can have.
func statusesOnly(r *state.Rule) bool {
	const problems = state.Set(1<<state.Degraded | 1<<state.Down | 1<<state.Unknown)
	return r.Becomes != 0 && r.Becomes&^problems == 0 && !r.Change && !r.Recovered && !r.Always && !r.Reminders && len(r.Transitions) == 0
}
