package checks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type fileOptions struct {
	MaxBytes int64 `json:"max_bytes" min:"1" doc:"The largest file to read for text or sha256."`
}

type fileFacts struct {
	Exists      *bool    `json:"exists" doc:"Whether it exists."`
	Kind        string   `json:"kind" doc:"file, directory, socket, pipe or device."`
	SizeBytes   *int64   `json:"size_bytes" doc:"Its size; of a directory: the sizes of the files in it."`
	AgeMS       *float64 `json:"age_ms" doc:"The time since it was last written to."`
	Modified    string   `json:"modified" doc:"When that was."`
	Mode        string   `json:"mode" doc:"Its permissions in octal, such as 0644."`
	Entries     *int     `json:"entries" doc:"How many entries a directory has."`
	Newest      string   `json:"newest" doc:"The file in a directory that was written to last."`
	NewestAgeMS *float64 `json:"newest_age_ms" doc:"The time since then."`
	SHA256      string   `json:"sha256" doc:"SHA-256 of its content, in hex; only where an expression reads it."`
	Text        string   `json:"text" large:"true" doc:"Its content; only where an expression reads it."`
}

func init() {
	register(probe.Info{
		Name:    "file",
		Summary: "a file or directory exists, and is as it should be",
		Schemes: []probe.Scheme{{Name: "file", Path: true}},
		Example: "file:///var/backups/latest.tar",
		Expect:  []string{"file.exists"},
		Doc: `Looks at a file or a directory of this machine, which needs --allow-files. Up means that it exists, unless the target mentions file.exists; the rest is for expressions:

    expect = ["file.age_ms < 26 * 3600 * 1000", "file.size_bytes > 1000000"]
    expect = ["file.newest_age_ms < 26 * 3600 * 1000"]      # a directory of backups
    expect = ["not file.exists"]                            # a flag file that must not be there

A symbolic link is followed. The content is read only of regular files, and only where an expression reads file.text or file.sha256; a file larger than max_bytes is down with the reason too-large. A file that we have no right to see is unknown. Of a directory with more than 100000 entries only so many are looked at. Where the file system does not answer, as one whose server is gone, the target is down with the reason timeout; the next look begins when the last one has come back.

Phases: request is all of it.`,
	}, fileOptions{MaxBytes: 16 << 20}, file)
}

func file(ctx context.Context, p *probe.Probe, opt *fileOptions, facts *fileFacts) error {
	p.Phase(wire.Request)
	q := fileQuestion{path: p.URL.Path, max: opt.MaxBytes, wantText: p.Reads("file.text"), wantSum: p.Reads("file.sha256")}
	l, begun := fileAsk(q)
	err := l.wait(ctx)
	if !begun && ctx.Err() == nil {
		l, _ = fileAsk(q) // what it has seen may be from long ago
		err = l.wait(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	*facts = l.facts
	return err
}

// fileQuestion is what to look at.
type fileQuestion struct {
	path              string
	max               int64
	wantText, wantSum bool
}

// fileLook is a look at a file, in a goroutine of its own. A file system whose
// server is gone may never let it go, so that those who come later wait for it
// instead of being stuck as well.
type fileLook struct {
	fileQuestion
	done  chan struct{} // closed at its end
	facts fileFacts
	err   error
}

var fileLooks struct {
	sync.Mutex
	underWay map[fileQuestion]*fileLook
}

// fileAsk begins a look, unless one is under way.
func fileAsk(q fileQuestion) (l *fileLook, begun bool) {
	fileLooks.Lock()
	defer fileLooks.Unlock()
	if l := fileLooks.underWay[q]; l != nil {
		return l, false
	}
	if fileLooks.underWay == nil {
		fileLooks.underWay = map[fileQuestion]*fileLook{}
	}
	l = &fileLook{fileQuestion: q, done: make(chan struct{})}
	fileLooks.underWay[q] = l
	go func() { l.end(l.look()) }()
	return l, true
}

func (l *fileLook) end(err error) {
	fileLooks.Lock()
	defer fileLooks.Unlock()
	delete(fileLooks.underWay, l.fileQuestion)
	l.err = err
	close(l.done)
}

func (l *fileLook) wait(ctx context.Context) error {
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *fileLook) look() error {
	fi, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		l.facts.Exists = new(false)
		return nil
	}
	if err != nil {
		return fileError(err)
	}
	f := &l.facts
	f.Exists, f.Kind, f.Mode = new(true), fileKind(fi.Mode()), fmt.Sprintf("%04o", fi.Mode().Perm())
	f.SizeBytes, f.AgeMS = new(fi.Size()), fileAge(fi)
	f.Modified = fi.ModTime().UTC().Format(wire.TimeFormat)
	switch {
	case fi.IsDir():
		return l.directory()
	case fi.Mode().IsRegular() && (l.wantText || l.wantSum):
		return l.content()
	}
	return nil
}

func fileAge(fi fs.FileInfo) *float64 { return new(wire.MS(time.Since(fi.ModTime()))) }

// fileError says that it is we who may not look.
func fileError(err error) error { return probe.Failf(wire.Local, "%w", err) }

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "directory"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "device"
}

// fileMaxEntries bounds the entries of a directory that are looked at.
const fileMaxEntries = 100_000

func (l *fileLook) directory() error {
	d, err := os.Open(l.path)
	if err != nil {
		return fileError(err)
	}
	defer d.Close()
	var size int64
	var newest fs.FileInfo
	n := 0
	for n < fileMaxEntries {
		list, err := d.ReadDir(1024)
		n += len(list)
		for _, e := range list {
			fi, err := e.Info()
			if err != nil || !fi.Mode().IsRegular() {
				continue // gone meanwhile, or no file
			}
			size += fi.Size()
			if newest == nil || fi.ModTime().After(newest.ModTime()) {
				newest = fi
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fileError(err)
		}
	}
	l.facts.Entries, l.facts.SizeBytes = &n, &size
	if newest != nil {
		l.facts.Newest, l.facts.NewestAgeMS = newest.Name(), fileAge(newest)
	}
	return nil
}

func (l *fileLook) content() error {
	f, err := os.OpenFile(l.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may have become a pipe
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, l.max+1))
	switch {
	case err != nil:
		return fileError(err)
	case int64(len(b)) > l.max:
		return probe.Failf(wire.TooLarge, "more than file.max_bytes = %d bytes", l.max)
	}
	if l.wantSum {
		sum := sha256.Sum256(b)
		l.facts.SHA256 = hex.EncodeToString(sum[:])
	}
	if l.wantText {
		l.facts.Text = string(b)
	}
	return nil
}
