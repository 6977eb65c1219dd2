//go:build faults

package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"pup/cmd/internal/realserver"
)

// TestFaultPowerCut takes the power away from the disk of the spool, at any
// change of it, a few times, while the hook is dead. When it works again, it
// is called for all that was accepted.
func TestFaultPowerCut(t *testing.T) {
	realserver.NeedRoot(t)
	realserver.NeedFile(t, "/dev/fuse")
	total := 0
	for seed := uint64(1); total < 200; seed++ {
		total += powerCuts(t, rand.New(rand.NewPCG(seed, 0)), seed)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d power cuts", total)
}

// powerCuts cuts the power a few times while lines are dealt with, and
// returns how often.
func powerCuts(t *testing.T, rnd *rand.Rand, seed uint64) (cuts int) {
	r := newRig(t, 60)
	disk := r.dir + "/disk"
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	r.configure(disk + "/spool")
	dead := r.dir + "/dead"
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in := r.step()
	left := &image{entries: map[string]*image{}}
	for range 6 {
		l, server := mountLossy(t, disk, left, 1+rnd.IntN(30))
		cmd := r.command(in)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-l.reached:
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
			close(l.off)
			<-ended
			cuts++
		case err := <-ended:
			if err != nil {
				t.Errorf("seed %d: after %d power cuts: %v", seed, cuts, err)
			}
		}
		if err := server.Unmount(); err != nil {
			t.Fatal(err)
		}
		left = l.root.crash(rnd)
	}
	if err := os.Remove(dead); err != nil {
		t.Fatal(err)
	}
	_, server := mountLossy(t, disk, left, 0)
	if err := r.command(in).Run(); err != nil {
		t.Errorf("seed %d: after %d power cuts: %v", seed, cuts, err)
	}
	if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
		t.Errorf("seed %d, %d power cuts: %d lost, %d not passed on", seed, cuts, lost, unpassed)
	}
	if err := server.Unmount(); err != nil {
		t.Fatal(err)
	}
	return cuts
}
