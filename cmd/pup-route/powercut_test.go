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
// change of it, as often as comes to pass, and then lets a run end. What was
// accepted is dealt with.
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
	r := newRig(t, 120)
	r.pad, r.flush = 300, 4
	disk := r.dir + "/disk"
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	r.configure(disk + "/spool")
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	go r.feed(w)
	left := &image{entries: map[string]*image{}}
	for run := 0; ; run++ {
		at := 0
		if run < 4 {
			at = 1 + rnd.IntN(60)
		}
		l, server := mountLossy(t, disk, left, at)
		cmd := r.command(in)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-l.reached:
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			close(l.off)
			<-ended
			cuts++
		case err := <-ended:
			if err != nil {
				t.Fatalf("seed %d: after %d power cuts: %v", seed, cuts, err)
			}
			if lost, _, unpassed := r.judge(); lost > 0 || unpassed > 0 {
				t.Errorf("seed %d, %d power cuts: %d lost, %d not passed on", seed, cuts, lost, unpassed)
			}
			at = 0
		}
		if err := server.Unmount(); err != nil {
			t.Fatal(err)
		}
		if at == 0 {
			return cuts
		}
		left = l.root.crash(rnd)
	}
}
