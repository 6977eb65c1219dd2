package cron

import "time"

type Spec struct{}

func (s *Spec) Next(t time.Time) time.Time { return time.Time{} }
