package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"pup/cmd/internal/wire"
)

// TestGapsThroughKills: however often pup-route is killed, the results that
// never came, and no others, are reported as lost.
func TestGapsThroughKills(t *testing.T) {
	r := newRig(t, 2000)
	in, w := piped(t)
	missing := 0
	lines := make([][]byte, 0, r.lines)
	for seq := 1; seq <= r.lines; seq++ {
		if seq%97 == 0 || seq%101 == 1 && seq > 1 {
			missing++
			continue
		}
		lines = append(lines, fmt.Appendf(nil, `{"name":"n%d","status":"up","run":"n%d@%d","series":"a1","seq":%d}`+"\n", seq%7, seq%7, seq, seq))
	}
	for i := 0; i+10 < len(lines); i += 10 {
		lines[i], lines[i+9] = lines[i+9], lines[i] // pup-probe answers out of order
	}
	go func() {
		defer w.Close()
		b := bufio.NewWriterSize(w, 16000)
		for i, line := range lines {
			b.Write(line) //nolint:errcheck // the pipe is held
			if i%16 == 15 {
				b.Flush() //nolint:errcheck // the pipe is held
			}
		}
		b.Flush() //nolint:errcheck // the pipe is held
	}()
	r.kills(in, min(faultKills, 100))
	text, err := os.ReadFile(r.dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	told, lost := map[string]bool{}, 0
	for line := range bytes.Lines(text) {
		var e struct {
			Type  string
			Error string
			Count int
		}
		if json.Unmarshal(line, &e) != nil || e.Type != wire.TypeError || told[e.Error] {
			continue // a killed one may leave a part of a line, or tell twice
		}
		told[e.Error] = true
		lost += e.Count
	}
	if lost != missing {
		t.Errorf("%d results are reported as lost, want %d: %v", lost, missing, told)
	}
}
