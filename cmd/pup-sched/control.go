package main

import (
	"errors"
	"io"
	"os"

	"pup/cmd/internal/cmdline"
	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/wire"
	"pup/cmd/pup-sched/internal/sched"
)

// openControl opens the FIFO for reading and writing, so that it does not end
// when a writer leaves.
func openControl(path string) (*os.File, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, cmdline.Errorf(cmdline.Usage, "--control: %w; make it with mkfifo", err)
	}
	if fi.Mode()&os.ModeNamedPipe == 0 {
		return nil, cmdline.Errorf(cmdline.Usage, "--control: %s is no FIFO; make one with mkfifo", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, cmdline.Errorf(cmdline.Usage, "--control: %w", err)
	}
	return f, nil
}

// listen passes the news that come from r on, until r ends. What can't be
// read, or is no news, is passed over.
func listen(r io.Reader, signal func(sched.Signal)) {
	in := ndjson.NewReader(r, ndjson.MaxLine)
	for {
		line, err := in.Next()
		var bad *ndjson.LineError
		if errors.As(err, &bad) {
			continue
		}
		if err != nil {
			return
		}
		if sig, ok := news(line.Text); ok {
			signal(sig)
		}
	}
}

// news reads a result line or {"type":"recheck","name":"…"}.
func news(text []byte) (sig sched.Signal, ok bool) {
	var kind, status string
	err := ndjson.Members(text, func(key, value []byte) error {
		var err error
		switch string(key) {
		case "type":
			kind, err = ndjson.Unquote(value)
		case "name":
			sig.Name, err = ndjson.Unquote(value)
		case "status":
			status, err = ndjson.Unquote(value)
		}
		return err
	})
	if err != nil || sig.Name == "" {
		return sig, false
	}
	if kind == "recheck" {
		sig.Recheck = true
		return sig, true
	}
	sig.Up = status == string(wire.Up)
	known := sig.Up || status == string(wire.Degraded) || status == string(wire.Down)
	return sig, (kind == "" || kind == wire.TypeResult) && known
}
