// Package spool keeps on disk what pup-route has accepted and not yet dealt
// with. One journal file takes everything in: results, what hooks have been
// told, jobs and their ends. When it has grown, a new one begins with a
// snapshot of what still matters, and the old one goes.
package spool

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pup/cmd/internal/ndjson"
	"pup/cmd/pup-route/internal/state"
)

// A Job is a call of a hook that is owed.
type Job struct {
	ID       string    `json:"id"`
	Hook     string    `json:"hook"`
	Key      string    `json:"key"` // jobs with the same hook and key run in order
	Name     string    `json:"name"`
	Env      []string  `json:"env"`
	Created  time.Time `json:"created"`
	Attempts int       `json:"attempts,omitempty"`
	After    time.Time `json:"after,omitzero"` // not before
	Reason   string    `json:"reason,omitempty"`
	Event    []byte    `json:"-"` // the line, as it goes to the hook
}

// retry is the payload of a retry frame.
type retry struct {
	ID       string    `json:"id"`
	Attempts int       `json:"attempts"`
	After    time.Time `json:"after"`
	Reason   string    `json:"reason"`
}

// A Handler is told what a journal holds, in its order.
type Handler interface {
	Name(state.Memory)                         // from the snapshot
	Result(line []byte, clock, wall time.Time) // was accepted
	Note(state.Note)                           // a hook was told something
	Kept(key string, value []byte) error       // was kept; no value: is forgotten
}

// A Spool is an open spool. It is not for concurrent use.
type Spool struct {
	dir      string
	lock     *os.File
	journal  *os.File
	number   uint64
	size     int64 // of the journal up to the last commit
	base     int64 // of the snapshot that it began with
	buf      []byte
	jobs     map[string]*Job
	order    []*Job // as they came, among them some that are no more
	kept     map[string][]byte
	input    uint64 // bytes that the last commit took
	inputCRC uint32
	dirty    bool // written and not synced
}

// ErrInUse says that another process has the spool.
var ErrInUse = errors.New("the spool is in use by another pup-route")

// Open opens the spool in dir, which it makes if need be, and tells h what
// it holds. An error means that nothing may be accepted.
func Open(dir string, h Handler) (*Spool, error) {
	if err := makeDir(filepath.Join(dir, "dead")); err != nil {
		return nil, err
	}
	if st, err := os.Stat(dir); err != nil {
		return nil, err
	} else if st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("spool %s may be written by others: chmod go-w it", dir)
	}
	s := &Spool{dir: dir, jobs: map[string]*Job{}, kept: map[string][]byte{}}
	if err := s.take(); err != nil {
		return nil, err
	}
	if err := s.recover(h); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// take locks the spool for this process.
func (s *Spool) take() (err error) {
	s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// One that was killed while it started a hook leaves a process that has
	// the lock for the moment until it is the hook.
	for until := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			s.lock.Close()
			return fmt.Errorf("lock the spool: %w", err)
		case time.Now().After(until):
			s.lock.Close()
			return ErrInUse
		}
	}
}

// lockWait is how long a lock of another process is waited for.
const lockWait = time.Second

// Close closes the spool without writing anything.
func (s *Spool) Close() {
	if s.journal != nil {
		s.journal.Close()
	}
	s.lock.Close()
}

func (s *Spool) path(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("journal-%016d", number))
}

// numbers lists the journals in dir, the newest last, and forgets those that
// were never finished.
func numbers(dir string) (found []uint64, unfinished []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), "journal-")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			unfinished = append(unfinished, filepath.Join(dir, e.Name()))
			continue
		}
		found = append(found, n)
	}
	slices.Sort(found)
	return found, unfinished, nil
}

// recover reads the newest journal and makes it ready to be appended to.
func (s *Spool) recover(h Handler) error {
	found, unfinished, err := numbers(s.dir)
	if err != nil {
		return err
	}
	for _, path := range unfinished {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return s.begin(1, nil)
	}
	s.number = found[len(found)-1]
	s.journal, err = os.OpenFile(s.path(s.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := s.read(h); err != nil {
		return fmt.Errorf("%s: %w", s.path(s.number), err)
	}
	for _, n := range found[:len(found)-1] { // a crash came before they went
		if err := os.Remove(s.path(n)); err != nil {
			return err
		}
	}
	return nil
}

// read tells h what the journal says, and cuts off what was not committed.
// The journal is mapped, since it may be larger than what we may use of the
// memory.
func (s *Spool) read(h Handler) error {
	st, err := s.journal.Stat()
	if err != nil || st.Size() == 0 {
		return errors.Join(err, s.replay(nil, h))
	}
	text, err := syscall.Mmap(int(s.journal.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer syscall.Munmap(text) //nolint:errcheck // nothing could be done
	if err := s.replay(text, h); err != nil {
		return err
	}
	if st.Size() > s.size {
		return s.cut(bytes.Clone(text[s.size:]))
	}
	return nil
}

// cut takes off what stands behind the last commit. Frames that are whole
// again behind a broken one were damaged, not torn: they are put aside.
func (s *Spool) cut(rest []byte) error {
	if damaged(rest) {
		dir := filepath.Join(s.dir, "quarantine")
		if err := makeDir(dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("journal-%016d-%d", s.number, s.size)), rest, 0o600); err != nil {
			return err
		}
	}
	if err := s.journal.Truncate(s.size); err != nil {
		return err
	}
	return s.journal.Sync()
}

// damaged reports whether a commit stands somewhere behind the first frame
// that can't be read.
func damaged(rest []byte) bool {
	for i := range rest {
		if kind, _, n, err := nextFrame(rest[i:]); err == nil && kind == kindCommit && n == frameHead+1+12 {
			return true
		}
	}
	return false
}

// replay tells h what the journal says, as far as it was committed.
func (s *Spool) replay(text []byte, h Handler) error {
	if len(text) < len(header) || string(text[:len(header)]) != header {
		first, _, _ := strings.Cut(string(text[:min(len(text), 40)]), "\n")
		return fmt.Errorf("%.40q is no spool of this version; update pup-route, or name another directory", first)
	}
	s.size = int64(len(header))
	type frame struct {
		kind    byte
		payload []byte
	}
	var batch []frame
	for at := len(header); at < len(text); {
		kind, payload, n, err := nextFrame(text[at:])
		if err != nil {
			return nil
		}
		at += n
		if kind != kindCommit {
			batch = append(batch, frame{kind, payload})
			continue
		}
		for _, f := range batch {
			if err := s.apply(f.kind, f.payload, h); err != nil {
				return err
			}
		}
		batch = batch[:0]
		if len(payload) == 12 {
			s.input, s.inputCRC = binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint32(payload[8:])
		}
		s.size = int64(at)
		if s.base == 0 {
			s.base = s.size
		}
	}
	return nil
}

func (s *Spool) apply(kind byte, payload []byte, h Handler) error {
	switch kind {
	case kindResult:
		if len(payload) < 16 {
			return errors.New("a result frame is too short")
		}
		clock, wall := binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:])
		h.Result(payload[16:], time.Unix(0, int64(clock)).UTC(), time.Unix(0, int64(wall)).UTC())
	case kindNote:
		var n state.Note
		if err := json.Unmarshal(payload, &n); err != nil {
			return err
		}
		h.Note(n)
	case kindName:
		var m state.Memory
		line, err := split(payload, &m)
		if err != nil {
			return err
		}
		m.Line = line
		h.Name(m)
	case kindJob:
		var j Job
		line, err := split(payload, &j)
		if err != nil {
			return err
		}
		j.Event = line
		s.add(&j)
	case kindEvent:
		var id string
		line, err := split(payload, &id)
		if err != nil {
			return err
		}
		if j := s.jobs[id]; j != nil {
			j.Event = line
		}
	case kindKept:
		var key string
		value, err := split(payload, &key)
		if err != nil {
			return err
		}
		s.keep(key, value)
		return h.Kept(key, value)
	case kindRetry:
		var r retry
		if err := json.Unmarshal(payload, &r); err != nil {
			return err
		}
		if j := s.jobs[r.ID]; j != nil {
			j.Attempts, j.After, j.Reason = r.Attempts, r.After, r.Reason
		}
	case kindDone:
		delete(s.jobs, string(payload))
	}
	return nil // a kind of a newer version that does not change the format
}

func (s *Spool) add(j *Job) {
	s.order = append(s.order, j)
	s.jobs[j.ID] = j
}

// Jobs lists the jobs that are open, in the order in which they came.
func (s *Spool) Jobs() []*Job {
	s.order = slices.DeleteFunc(s.order, func(j *Job) bool { return s.jobs[j.ID] != j })
	return slices.Clone(s.order)
}

// Open reports whether the job is open.
func (s *Spool) Open(id string) bool { return s.jobs[id] != nil }

// Input is how many bytes of input the last commit took, and their crc32c:
// when the input begins with the same bytes, they have been accepted.
func (s *Spool) Input() (n uint64, crc uint32) { return s.input, s.inputCRC }

// Result adds an accepted result to the batch.
func (s *Spool) Result(line []byte, clock, wall time.Time) {
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:], uint64(clock.UnixNano()))
	binary.LittleEndian.PutUint64(head[8:], uint64(wall.UnixNano()))
	s.buf = appendFrame(s.buf, kindResult, head[:], line)
}

// Note adds what a hook is told to the batch.
func (s *Spool) Note(n *state.Note) error { return s.json(kindNote, n) }

// Job adds a job to the batch.
func (s *Spool) Job(j *Job) error {
	s.add(j)
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	s.buf = appendFrame(s.buf, kindJob, b, newline, j.Event)
	return nil
}

var newline = []byte("\n")

// split decodes the JSON before the first newline into v, and returns a copy
// of the line behind it, whose bytes are kept as they are.
func split(payload []byte, v any) (line []byte, err error) {
	head, line, _ := bytes.Cut(payload, newline)
	return bytes.Clone(line), json.Unmarshal(head, v)
}

// Keep adds a value to the batch that is to be remembered under the key, also
// by later journals; no value: it is forgotten.
func (s *Spool) Keep(key string, value []byte) error {
	b, err := json.Marshal(key)
	if err != nil {
		return err
	}
	s.keep(key, value)
	s.buf = appendFrame(s.buf, kindKept, b, newline, value)
	return nil
}

func (s *Spool) keep(key string, value []byte) {
	if len(value) == 0 {
		delete(s.kept, key)
		return
	}
	s.kept[key] = value
}

// Event notes that the job has another event line.
func (s *Spool) Event(j *Job) error {
	b, err := json.Marshal(j.ID)
	if err != nil {
		return err
	}
	s.buf = appendFrame(s.buf, kindEvent, b, newline, j.Event)
	return nil
}

// Retry notes that the job runs again.
func (s *Spool) Retry(j *Job) error {
	return s.json(kindRetry, &retry{j.ID, j.Attempts, j.After, j.Reason})
}

// Done notes that the job is no more.
func (s *Spool) Done(id string) {
	delete(s.jobs, id)
	s.buf = appendFrame(s.buf, kindDone, []byte(id))
}

func (s *Spool) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.buf = appendFrame(s.buf, kind, b)
	return nil
}

// Commit writes the batch, which took the input, and syncs it. Afterwards it
// is accepted. An error for want of space (IsFull) leaves the batch as it
// is, for another try; any other error is final: what a failed sync has left
// in the file nobody knows, so nothing may be written behind it.
func (s *Spool) Commit(input []byte) error {
	return s.write(uint64(len(input)), checksum(input), true)
}

// Flush is Commit of a batch that took no input.
func (s *Spool) Flush() error { return s.write(s.input, s.inputCRC, true) }

// Write writes the batch without a sync: it survives our end, but not that
// of the machine. That is enough for what would only be done twice.
func (s *Spool) Write() error { return s.write(s.input, s.inputCRC, false) }

// Pending reports whether something has been added to the batch.
func (s *Spool) Pending() bool { return len(s.buf) > 0 }

// Dirty reports whether something is written and not synced.
func (s *Spool) Dirty() bool { return s.dirty }

// Sync makes lasting what Write has written.
func (s *Spool) Sync() error {
	if !s.dirty {
		return nil
	}
	s.dirty = false
	return datasync(s.journal)
}

func (s *Spool) write(input uint64, crc uint32, sync bool) error {
	if len(s.buf) > 0 || input != s.input || crc != s.inputCRC {
		mark := len(s.buf)
		s.buf = commitFrame(s.buf, input, crc)
		n, err := s.journal.WriteAt(s.buf, s.size)
		if err != nil {
			s.buf = s.buf[:mark]
			if n > 0 {
				if cut := s.journal.Truncate(s.size); cut != nil {
					return fmt.Errorf("cut off what was not written whole (%w): %w", err, cut)
				}
			}
			return err
		}
		s.size += int64(n)
		s.input, s.inputCRC = input, crc
		s.buf = s.buf[:0]
		s.dirty = true
	}
	if !sync {
		return nil
	}
	return s.Sync()
}

// IsFull reports whether an error of Commit or Write says that there is no
// space left, which may pass.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// Full reports whether the journal should be replaced by a new one: it is
// several times as large as what it would begin with.
func (s *Spool) Full() bool { return s.size > max(minRotate, 4*s.base) }

// Rotate begins a new journal with what still matters: the names, and the
// jobs that are open. The batch must have been committed.
func (s *Spool) Rotate(names func(func(*state.Memory))) error {
	old := s.journal
	number := s.number
	if err := s.begin(number+1, names); err != nil {
		return err
	}
	old.Close()
	return os.Remove(s.path(number))
}

// begin writes a journal and takes it into use. A crash at any point leaves
// either the old one or the whole new one.
func (s *Spool) begin(number uint64, names func(func(*state.Memory))) error {
	unfinished := s.path(number) + ".new"
	f, err := os.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	size, err := s.snapshot(f, names)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(unfinished, s.path(number))
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		f.Close()
		os.Remove(unfinished) //nolint:errcheck // the next start removes it
		return fmt.Errorf("begin a journal: %w", err)
	}
	s.journal, s.number = f, number
	s.size, s.base = size, size
	s.dirty = false
	return nil
}

// snapshot writes what a journal begins with, and returns its size. Names are
// written one by one: all of them would not fit our share of the memory.
func (s *Spool) snapshot(f *os.File, names func(func(*state.Memory))) (size int64, err error) {
	w := bufio.NewWriterSize(f, 64<<10)
	var buf []byte
	put := func(b []byte) {
		n, _ := w.Write(b) // Flush returns the error
		size += int64(n)
	}
	frame := func(kind byte, v any, line []byte) {
		b, e := json.Marshal(v)
		err = errors.Join(err, e)
		buf = appendFrame(buf[:0], kind, b, newline, line)
		put(buf)
	}
	put([]byte(header))
	if names != nil {
		names(func(m *state.Memory) { frame(kindName, m, m.Line) })
	}
	for _, key := range slices.Sorted(maps.Keys(s.kept)) {
		frame(kindKept, key, s.kept[key])
	}
	for _, j := range s.Jobs() {
		frame(kindJob, j, j.Event)
	}
	put(commitFrame(nil, s.input, s.inputCRC))
	return size, errors.Join(err, w.Flush())
}

// commitFrame appends the frame that ends a batch.
func commitFrame(dst []byte, input uint64, crc uint32) []byte {
	var tail [12]byte
	binary.LittleEndian.PutUint64(tail[:], input)
	binary.LittleEndian.PutUint32(tail[8:], crc)
	return appendFrame(dst, kindCommit, tail[:])
}

// makeDir makes a folder, and those above it, so that they last: what is
// synced in a folder is lost with the folder.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDir(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	switch {
	case err == nil:
		return syncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Die puts a job aside, with the reason in it, and notes that it is no more.
func (s *Spool) Die(j *Job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	b = append(ndjson.Splice(nil, b, "event", j.Event), '\n')
	if err := writeFile(deadPath(s.dir, j.ID), b); err != nil {
		return err
	}
	s.Done(j.ID)
	return nil
}

func deadPath(dir, id string) string { return filepath.Join(dir, "dead", id+".json") }

// writeFile writes a file so that it is whole or not there.
func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// Dead lists the jobs that were put aside in the spool in dir.
func Dead(dir string) (jobs []*Job, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "dead", "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var j Job
		if err == nil {
			err = json.Unmarshal(b, &j)
		}
		if err == nil {
			err = ndjson.Members(b, func(key, value []byte) error {
				if string(key) == "event" {
					j.Event = bytes.Clone(value)
				}
				return nil
			})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		jobs = append(jobs, &j)
	}
	return jobs, nil
}
