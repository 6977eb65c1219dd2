package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestSilenceIsReadAsWritten(t *testing.T) {
	dir := t.TempDir()
	s := Silence{File: "a.toml", From: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Until: time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC),
		Names: []string{"a\"\\\n\u202e\U000e0041'''", ""}, Hooks: []string{"h"}, Incident: "0123", Reason: "<&>\t", By: "ä"}
	if err := s.SetWhen(`labels.team == "db\n"`); err != nil {
		t.Fatal(err)
	}
	if err := WriteSilence(dir, &s); err != nil {
		t.Fatal(err)
	}
	all, err := LoadSilences(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %d silences", err, len(all))
	}
	got := all[0]
	if got.When == nil || got.When.String() != s.When.String() {
		t.Errorf("when is %v", got.When)
	}
	got.When, got.File, s.When = nil, filepath.Base(got.File), nil
	if !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v want %+v", got, s)
	}
}

// TestSilenceIsWhole: who reads while others write sees whole silences only.
func TestSilenceIsWhole(t *testing.T) {
	dir := t.TempDir()
	written := make(chan error)
	const n = 200
	for range 2 {
		go func() {
			var err error
			for i := range n {
				if err == nil {
					err = WriteSilence(dir, &Silence{File: "a.toml", Until: time.Unix(int64(i), 0), Names: make([]string, i)})
				}
			}
			written <- err
		}()
	}
	for left := 2; left > 0; {
		if _, err := LoadSilences(dir); err != nil {
			t.Error(err)
		}
		select {
		case err := <-written:
			if left--; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

func TestSilenceNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", "a", ".toml", ".a.toml", "../a.toml", "/a.toml", "b/a.toml", "a\x00.toml", fmt.Sprintf("%0200d.toml", 0)} {
		if err := WriteSilence(dir, &Silence{File: name}); err == nil {
			t.Errorf("%q was written", name)
		}
		if err := RemoveSilence(dir, name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
}
