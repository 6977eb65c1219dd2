package route

import "time"

// A clock shows the time of the input: each result moves it to its own time,
// never back, and while none comes it goes on as the clock on the wall does.
// So a file of last month is routed as it was routed live. A frozen clock, of
// a dry run, shows the time of the last result and nothing else.
type clock struct {
	wall   func() time.Time
	frozen bool
	base   time.Time // shown at the moment set
	set    time.Time
}

// skew is how far ahead of us the clock of a prober may be.
const skew = time.Minute

func (c *clock) now() time.Time {
	switch {
	case c.base.IsZero():
		return c.wall()
	case c.frozen:
		return c.base
	}
	return c.base.Add(max(0, c.wall().Sub(c.set)))
}

// observe takes the time of a result in and returns the time to take the
// result in at.
func (c *clock) observe(t time.Time) time.Time {
	now := c.now()
	if t.IsZero() {
		return now
	}
	wall := c.wall()
	if c.base.IsZero() || t.After(now) && t.Before(wall.Add(skew)) {
		c.base, c.set = t, wall
		return t
	}
	return now
}

// until is how long it takes on the wall until the clock shows t.
func (c *clock) until(t time.Time) time.Duration { return t.Sub(c.now()) }
