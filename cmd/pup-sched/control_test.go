package main

import (
	"strings"
	"testing"

	"pup/cmd/pup-sched/internal/sched"
)

func TestListen(t *testing.T) {
	in := `{"v":1,"type":"result","name":"a","status":"down","http":{"status":500}}
{"type":"result","name":"b","status":"up"}
{"name":"c","status":"degraded"}
{"type":"recheck","name":"d"}
{"type":"result","name":"e","status":"unknown"}
{"type":"target","name":"f","status":"down"}
{"type":"event","name":"g","status":"down"}
{"type":"result","status":"down"}
{"type":"result","name":7,"status":"down"}
nonsense
` + strings.Repeat("x", 2<<20) + `
{"type":"result","name":"h","status":"down"}`
	var got []sched.Signal
	listen(strings.NewReader(in), func(s sched.Signal) { got = append(got, s) })
	want := []sched.Signal{{Name: "a"}, {Name: "b", Up: true}, {Name: "c"}, {Name: "d", Recheck: true}, {Name: "h"}}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
