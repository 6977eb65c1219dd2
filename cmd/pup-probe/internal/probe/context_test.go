package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttemptContext(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(a *attemptContext, cancel func())
		want error
	}{
		{"deadline", func(*attemptContext, func()) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
		{"the run's end", func(_ *attemptContext, cancel func()) { cancel() }, context.Canceled},
		{"its own end", func(a *attemptContext, _ func()) { a.end() }, context.Canceled},
	} {
		for _, armed := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					run, cancel := context.WithCancel(t.Context())
					defer cancel()
					a := &attemptContext{Context: run, deadline: time.Now().Add(time.Minute)}
					defer a.end()
					var child context.Context = a
					if armed {
						sub, stop := context.WithCancel(a)
						defer stop()
						child = sub
					}
					if err := child.Err(); err != nil {
						t.Fatalf("ended before its time: %v", err)
					}
					tt.end(a, cancel)
					synctest.Wait()
					if got := child.Err(); got != tt.want {
						t.Errorf("got %v, want %v", got, tt.want)
					}
					select {
					case <-child.Done():
					default:
						t.Errorf("Done is open, want it closed")
					}
				})
			})
		}
	}
}
