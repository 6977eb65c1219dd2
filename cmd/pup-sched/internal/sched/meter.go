package sched

import (
	"io"
	"sync"
	"time"
)

// A meter writes to w, and knows how long the reader made it wait.
type meter struct {
	w       io.Writer
	clock   func() int64 // milliseconds since the epoch
	now     int64        // after the last write, or the last look at the clock
	blocked time.Duration
	last    time.Duration // blocked since the last report

	warn  func(time.Duration)
	mu    sync.Mutex
	alarm *time.Timer
	since time.Time
}

// blockedAfter is how long a write may take before it counts as blocked.
const blockedAfter = 5 * time.Millisecond

// alarmAfter is how long a write may take before it is said aloud, while it
// still goes on.
const alarmAfter = 10 * time.Second

func newMeter(w io.Writer, clock func() int64, warn func(time.Duration)) *meter {
	m := &meter{w: w, clock: clock, warn: warn}
	m.alarm = time.AfterFunc(time.Hour, m.ring)
	m.alarm.Stop()
	return m
}

func (m *meter) ring() {
	m.mu.Lock()
	waited := time.Since(m.since)
	m.mu.Unlock()
	m.warn(waited)
}

func (m *meter) Write(p []byte) (int, error) {
	start := time.Now()
	m.mu.Lock()
	m.since = start
	m.mu.Unlock()
	m.alarm.Reset(alarmAfter)
	n, err := m.w.Write(p)
	m.alarm.Stop()
	m.now = m.clock()
	if d := time.Since(start); d >= blockedAfter {
		m.blocked += d
		m.last += d
	}
	return n, err
}
