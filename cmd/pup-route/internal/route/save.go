package route

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"pup/cmd/pup-route/internal/spool"
	"pup/cmd/pup-route/internal/state"
)

// open opens the spool, if there is one, takes back what it holds, and
// returns the source to read the input from.
func (r *router) open(in io.Reader) (source, error) {
	f, ok := in.(*os.File)
	if ok {
		widen(f)
	}
	if r.Config.Spool == "" || r.DryRun {
		return &plainSource{in}, nil
	}
	s, err := spool.Open(r.Config.Spool, &recovery{r})
	if err != nil {
		return nil, err
	}
	r.spool = s
	r.gaps.Resume(r.clock.now())
	r.sweep()
	for _, j := range s.Jobs() {
		r.reopen(j)
	}
	if !ok {
		return &plainSource{in}, nil
	}
	n, sum := s.Input()
	src, why := newSource(f, n, sum)
	if why != "" {
		r.log.printf("a result that is read when we are killed is lost: %s", why)
	}
	return src, nil
}

// reopen queues a job that the spool held.
func (r *router) reopen(j *spool.Job) {
	if h := r.hooks[j.Hook]; h != nil {
		r.queue.Add(r.queued(h, j))
		return
	}
	j.Reason = "the hook is no longer configured"
	r.report(j, j.Reason)
	if err := r.spool.Die(j); err != nil {
		r.fail("put a job aside", err)
	}
}

// close leaves the spool in order.
func (r *router) close() {
	if r.spool == nil {
		return
	}
	if r.failure == nil && r.save() {
		if err := r.spool.Sync(); err != nil {
			r.fail("sync the spool", err)
		}
	}
	r.spool.Close()
}

// recovery takes back what a journal holds.
type recovery struct{ r *router }

func (c *recovery) Name(m state.Memory) { c.r.table.Restore(m) }
func (c *recovery) Note(n state.Note)   { c.r.table.Apply(n) }

func (c *recovery) Result(line []byte, clock, wall time.Time) {
	r := c.r
	if r.fields.scan(line) != nil || r.fields.result(&r.result, line, true, true) != nil {
		return // it was fine when it was accepted
	}
	r.clock.base, r.clock.set = clock, wall
	r.numbered(clock)
	r.table.Replay(&r.result, clock)
}

func (c *recovery) Kept(key string, value []byte) error {
	kind, rest, _ := strings.Cut(key, "\x00")
	switch kind {
	case keptGaps:
		return c.r.gaps.Restore(rest, value)
	case keptTrouble:
		return c.r.recall(rest, value)
	}
	return nil // of a newer version
}

// noted is called by the state when what a hook has been told changes.
func (r *router) noted(n *state.Note) {
	if r.spool != nil {
		if err := r.spool.Note(n); err != nil {
			r.fail("write the spool", err)
		}
	}
}

// save writes what is to be kept. What was taken in is synced: then it is
// accepted. It reports false when nothing more may be accepted now.
func (r *router) save() bool {
	var err error
	switch {
	case r.taken != nil && !r.taken.known:
		err = r.spool.Commit(r.taken.input)
	case len(r.pending) > 0:
		err = r.spool.Flush()
	case r.spool.Pending():
		err = r.spool.Write()
	}
	if err == nil && r.spool.Full() {
		r.keepGaps(r.gaps.All())
		// Without space or a descriptor for a new journal the old one goes on.
		if err = r.spool.Rotate(r.table.Names); spool.IsFull(err) || errors.Is(err, syscall.EMFILE) {
			err = nil
		}
	}
	switch {
	case err == nil:
		r.full = false
		return r.failure == nil
	case !spool.IsFull(err):
		r.fail("write the spool", err)
	case !r.full:
		r.full = true
		r.log.printf("the spool is full, nothing is accepted until there is space: %v", err)
	}
	return false
}

// requestsEvery is how often the spool is looked at for requests of
// pup-route spool.
const requestsEvery = 5 * time.Second

// spoolWait is how long the spool needs no attention.
func (r *router) spoolWait() time.Duration {
	if r.full || r.spool.Dirty() {
		return time.Second
	}
	return max(0, r.asked.Add(requestsEvery).Sub(r.clock.wall))
}

// requests carries out what was asked for by pup-route spool.
func (r *router) requests() {
	if r.clock.wall.Sub(r.asked) < requestsEvery {
		return
	}
	r.asked = r.clock.wall
	asked, err := r.spool.Requests()
	if err != nil {
		r.log.printf("requests to the spool: %v", err)
	}
	for _, a := range asked {
		if !a.Drop && r.spool.Open(a.ID) {
			r.queue.Hurry(true)
			continue
		}
		j, err := r.spool.Carry(a)
		if err != nil {
			r.log.printf("request to the spool: %v", err)
		}
		if j != nil {
			r.reopen(j)
		}
	}
}
