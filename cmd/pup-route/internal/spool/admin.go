package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pup/cmd/pup-route/internal/state"
)

// nobody is a Handler for who is interested in jobs only.
type nobody struct{}

func (nobody) Name(state.Memory) {}
func (nobody) Note(state.Note)   {}

func (nobody) Kept(string, []byte) error { return nil }

func (nobody) Result([]byte, time.Time, time.Time) {}

// List returns the jobs that are open and those that were put aside. It only
// reads, so a pup-route may have the spool meanwhile.
func List(dir string) (open, dead []*Job, err error) {
	s, err := read(dir, nobody{})
	if err != nil {
		return nil, nil, err
	}
	dead, err = Dead(dir)
	return s.Jobs(), dead, err
}

// read tells h what the newest journal in dir says.
func read(dir string, h Handler) (*Spool, error) {
	found, _, err := numbers(dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{dir: dir, jobs: map[string]*Job{}, kept: map[string][]byte{}}
	if len(found) == 0 {
		return s, nil
	}
	path := s.path(found[len(found)-1])
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := s.replay(text, h); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// A Request asks for a job to be tried again, or to be dropped.
type Request struct {
	Drop bool
	ID   string
}

func (r Request) name() string {
	if r.Drop {
		return "drop-" + r.ID
	}
	return "retry-" + r.ID
}

// Ask carries a request out, or leaves it to the pup-route that has the
// spool, which looks for requests every few seconds.
func Ask(dir string, r Request) error {
	open, dead, err := List(dir)
	if err != nil {
		return err
	}
	known := false
	for _, j := range append(open, dead...) {
		known = known || j.ID == r.ID
	}
	if !known {
		return fmt.Errorf("there is no job %.80q in %s; pup-route spool list shows them", r.ID, dir)
	}
	s, err := Open(dir, nobody{})
	if errors.Is(err, ErrInUse) {
		requests := filepath.Join(dir, "requests")
		if err := makeDir(requests); err != nil {
			return err
		}
		return writeFile(filepath.Join(requests, r.name()), nil)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Carry(r); err != nil {
		return err
	}
	return s.Flush()
}

// Requests lists what has been asked of us; each is gone when it was listed.
func (s *Spool) Requests() (asked []Request, err error) {
	dir := filepath.Join(s.dir, "requests")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		what, id, _ := strings.Cut(e.Name(), "-")
		if id == "" || strings.HasSuffix(id, ".new") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return asked, err
		}
		asked = append(asked, Request{Drop: what == "drop", ID: id})
	}
	return asked, err
}

// Carry carries a request out. It returns the job that it opened again, if
// it did.
func (s *Spool) Carry(r Request) (*Job, error) {
	if r.Drop && s.Open(r.ID) {
		s.Done(r.ID)
		return nil, nil
	}
	dead, err := Dead(s.dir)
	if err != nil {
		return nil, err
	}
	for _, j := range dead {
		if j.ID != r.ID {
			continue
		}
		if !r.Drop {
			j.Attempts, j.Reason = 0, ""
			if err := s.Job(j); err != nil {
				return nil, err
			}
			if err := s.Flush(); err != nil {
				return nil, err
			}
		} else {
			j = nil
		}
		return j, os.Remove(deadPath(s.dir, r.ID))
	}
	return nil, nil
}
