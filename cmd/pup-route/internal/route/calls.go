package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-route/internal/config"
	"pup/cmd/pup-route/internal/hook"
	"pup/cmd/pup-route/internal/queue"
	"pup/cmd/pup-route/internal/spool"
	"pup/cmd/pup-route/internal/state"
)

// program is who writes our error lines.
const program = "pup-route"

// A call is what a job carries: how to call a hook once.
type call struct {
	hook *config.Hook
	job  *spool.Job
	bare []byte              // the event without what diagnose commands found, while that is waited for
	more []*queue.Job[*call] // gathered with it, while it runs
}

// ended is a run that has ended.
type ended struct {
	job     *queue.Job[*call]
	outcome hook.Outcome
}

// maxQueued is how many bytes of events may wait for their hooks. Beyond it
// nothing is read until some have run: the pipe is the queue.
const maxQueued = 16 << 20

// event is called by the state for each call of a hook.
func (r *router) event(e *state.Event) {
	h := &r.Config.Hooks[e.Rule]
	line := appendEvent(nil, h.Name, e, e.Since.Add(e.For))
	if r.DryRun {
		r.add(line)
		return
	}
	t := r.troubleOf(e)
	bare := line
	if t != nil {
		bare = t.labeled(line)
		if line = bare; tells(e.Kind) {
			line = t.attach(bare, unfinished)
		}
	}
	key := e.Name + "\x00" + e.Vantage
	if h.Command.Input == hook.Stream || h.Group > 0 {
		key = ""
	}
	j := &spool.Job{ID: e.Job, Hook: h.Name, Key: key, Name: e.Name, Env: environ(h.Name, e), Created: r.clock.wall.UTC(), Event: line}
	if r.spool != nil {
		if err := r.spool.Job(j); err != nil {
			r.fail("write the spool", err)
		}
	}
	q := r.queued(h, j)
	if t != nil && t.awaited(e.Kind) {
		r.hold(t, q, bare)
	}
	r.pending = append(r.pending, q)
}

func (r *router) queued(h *config.Hook, j *spool.Job) *queue.Job[*call] {
	q := &queue.Job[*call]{Hook: j.Hook, Key: j.Key, Size: len(j.Event) + 512, Attempt: j.Attempts, Load: &call{hook: h, job: j}}
	if h.Group > 0 && j.Attempts == 0 {
		q.After = j.Created.Add(h.Group)
	}
	return q
}

// start starts what may run now.
func (r *router) start() {
	now := r.Wall()
	for j := r.queue.Take(now); j != nil; j = r.queue.Take(now) {
		c := j.Load
		if r.spool != nil && !r.spool.Open(c.job.ID) {
			r.queue.Done(j, 0) // dropped by request
			continue
		}
		line, env := append(slices.Clip(c.job.Event), '\n'), c.job.Env
		if c.hook.Group > 0 {
			line, env = r.gather(j)
		}
		if c.hook.Command.Input == hook.Stream {
			p := r.stream[c.hook.Name]
			if p == nil { // a reload took the hook away while this job waited
				p = r.process(c.hook)
				r.stream[c.hook.Name] = p
			}
			go func() { r.ended <- ended{j, p.Send([]string{"PUP_HOOK=" + c.hook.Name}, line)} }()
			continue
		}
		env = append(slices.Clip(env), "PUP_ATTEMPT="+strconv.Itoa(j.Attempt))
		go func() { r.ended <- ended{j, c.hook.Command.Run(r.stop, env, line)} }()
	}
}

// maxGroup is how many events are given to a hook in one call.
const maxGroup = 100

// gather makes one call of a job and those behind it.
func (r *router) gather(j *queue.Job[*call]) (line []byte, env []string) {
	c := j.Load
	c.more = r.queue.Behind(j, maxGroup-1)
	jobs := []*spool.Job{c.job}
	for _, m := range c.more {
		jobs = append(jobs, m.Load.job)
	}
	env = []string{"PUP_HOOK=" + c.hook.Name, "PUP_JOB=" + c.job.ID, "PUP_EVENT=group", "PUP_COUNT=" + strconv.Itoa(len(jobs))}
	return append(appendGroup(nil, c.hook.Name, jobs, r.clock.now()), '\n'), env
}

// done deals with a run that has ended.
func (r *router) done(e ended, now phase) {
	c, j := e.job.Load, e.job.Load.job
	if !r.Quiet {
		r.log.output(c.hook.Name, j.Name, e.outcome.Output)
	}
	if e.outcome.Err == nil {
		if c.hook.Command.Answers {
			r.answered(j, e.outcome.Answer)
			for _, m := range c.more {
				r.answered(m.Load.job, e.outcome.Answer)
			}
		}
		r.gone(e.job)
		return
	}
	if e.outcome.Lacking {
		e.job.Attempt-- // it was none
	}
	j.Attempts = e.job.Attempt
	j.Reason = e.outcome.Err.Error()
	switch wall := r.Wall(); {
	case e.outcome.Canceled:
		r.report(j, j.Reason)
		r.queue.Again(e.job, wall) // nothing is started any more
	case slices.Contains(c.hook.PermanentExit, e.outcome.Exit):
		r.dead(e.job, j.Reason+", for good")
	case wall.Sub(j.Created) >= c.hook.RetryFor:
		r.dead(e.job, fmt.Sprintf("%s; given up after %v and %d attempts", j.Reason, wall.Sub(j.Created).Round(time.Second), j.Attempts))
	case r.spool == nil && now != reading:
		r.dead(e.job, j.Reason+"; given up: the input has ended, and there is no spool to keep it in")
	default:
		delay := again(c.hook, wall.Sub(j.Created))
		j.After = wall.Add(delay).UTC()
		if r.spool != nil {
			if err := r.spool.Retry(j); err != nil {
				r.fail("write the spool", err)
			}
		}
		kept := ""
		if r.spool == nil {
			kept = ", if pup-route still runs: there is no spool"
		}
		r.report(j, fmt.Sprintf("%s; attempt %d follows in %v%s", j.Reason, j.Attempts+1, delay.Round(time.Millisecond), kept))
		r.queue.Again(e.job, j.After)
	}
}

// again is how long to wait before the next attempt: as long as the job is
// old, so that the pauses double, with a fifth of chance in it.
func again(h *config.Hook, age time.Duration) time.Duration {
	d := min(max(age, h.RetryMin), h.RetryMax)
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d))
}

// gone takes a job out of queue and spool, with those that ran with it.
func (r *router) gone(j *queue.Job[*call]) {
	r.queue.Done(j, len(j.Load.more))
	if r.spool == nil {
		return
	}
	r.spool.Done(j.Load.job.ID)
	for _, m := range j.Load.more {
		r.spool.Done(m.Load.job.ID)
	}
}

// dead gives a job up, with those that ran with it.
func (r *router) dead(j *queue.Job[*call], reason string) {
	r.queue.Done(j, len(j.Load.more))
	for _, q := range append([]*queue.Job[*call]{j}, j.Load.more...) {
		job := q.Load.job
		job.Reason = reason
		r.report(job, reason)
		if r.spool == nil {
			continue
		}
		if err := r.spool.Die(job); err != nil {
			r.fail("put a job aside", err)
		}
	}
}

// report says that a hook failed: in the stream, and to people.
func (r *router) report(j *spool.Job, reason string) {
	r.log.printf("hook %s for %s: %s", j.Hook, ndjson.Printable(ndjson.Cut(j.Name, 100)), reason)
	b := append(r.buf[:0], `{"v":1,"type":"`+wire.TypeError+`","program":"`+program+`","error":`...)
	b = ndjson.AppendString(b, ndjson.Cut(reason, 512))
	b = ndjson.AppendString(append(b, `,"name":`...), ndjson.Cut(j.Name, 1024))
	b = append(append(b, `,"hook":"`...), j.Hook...)
	b = append(append(append(b, `","job":"`...), j.ID...), `"}`...)
	r.buf = b
	r.add(b)
	r.flush()
}
