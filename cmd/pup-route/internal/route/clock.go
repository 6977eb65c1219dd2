package route

import "time"

// A clock shows the time of the input: each result moves it to its own time,
// never back, and while none comes it goes on as the clock on the wall does.
// So a file of last month is routed as it was routed live. A frozen clock, of
// a dry run, shows the time of the last result and nothing else.
type clock struct {
	frozen bool
	base   time.Time // shown when the wall said set
	set    time.Time
	wall   time.Time // what it says, as of the last tick
}

// skew is how far ahead of us the clock of a prober may be.
const skew = time.Minute

// tick tells the clock what the one on the wall says. That is asked once for
// each batch of lines, since asking costs as much as a tenth of a line.
func (c *clock) tick(wall time.Time) { c.wall = wall }

func (c *clock) now() time.Time {
	switch {
	case c.base.IsZero():
		return c.wall
	case c.frozen:
		return c.base
	}
	return c.base.Add(max(0, c.wall.Sub(c.set)))
}

// observe takes the time of a result in and returns the time to take the
// result in at.
func (c *clock) observe(t time.Time) time.Time {
	now := c.now()
	if t.IsZero() {
		return now
	}
	if c.base.IsZero() || t.After(now) && t.Before(c.wall.Add(skew)) {
		c.base, c.set = t, c.wall
		return t
	}
	return now
}

// until is how long it takes on the wall until the clock shows t.
func (c *clock) until(t time.Time) time.Duration { return t.Sub(c.now()) }
