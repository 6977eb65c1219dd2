//go:build faults

package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An image is a file or folder that lasts.
type image struct {
	data    []byte
	entries map[string]*image // not nil: a folder
}

// A lossy is a file system that loses at a power cut what POSIX lets it lose:
// of a file any sectors that were written and not synced, of a folder the
// last changes since it was synced itself, even of files that were.
type lossy struct {
	mu      sync.Mutex
	root    *node
	changes int
	cutAt   int           // the change at which the power goes; 0: never
	reached chan struct{} // is closed then
	off     chan struct{} // to be closed when nobody is left to see what is lost
}

// A node is a file or folder as programs see it, and what of it lasts.
type node struct {
	fs.Inode
	disk    *lossy
	data    []byte
	synced  []byte
	writes  []change         // since the last sync
	entries map[string]*node // not nil: a folder
	durable map[string]*node
	log     []map[string]*node // what entries were after each change since the last sync
}

// A change is one of a file.
type change struct {
	at   int
	data []byte // nil: cut to at
}

func (w *change) apply(data []byte) []byte {
	end := w.at + len(w.data)
	if w.data == nil || end > len(data) {
		data = append(slices.Clone(data), make([]byte, max(0, end-len(data)))...)[:end]
	}
	copy(data[w.at:], w.data)
	return data
}

// mountLossy mounts a file system that holds the image at dir.
func mountLossy(t *testing.T, dir string, i *image, cutAt int) (*lossy, *fuse.Server) {
	t.Helper()
	l := &lossy{cutAt: cutAt, reached: make(chan struct{}), off: make(chan struct{})}
	l.root = l.load(i)
	o := &fs.Options{}
	o.DirectMountStrict = true
	o.FsName = "pup-lossy"
	o.OnAdd = func(ctx context.Context) { l.root.grow(ctx) }
	server, err := fs.Mount(dir, l.root, o)
	if err == nil {
		// A program with a copy of the connection would keep it alive when we
		// die, and wait for answers that nobody gives, and so would ps.
		err = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) }) //nolint:errcheck // of a test that failed
	return l, server
}

func (l *lossy) load(i *image) *node {
	n := &node{disk: l, data: i.data, synced: i.data}
	if i.entries != nil {
		n.entries = map[string]*node{}
		for name, child := range i.entries {
			n.entries[name] = l.load(child)
		}
		n.durable = maps.Clone(n.entries)
	}
	return n
}

// grow tells the kernel's side of the tree what a folder holds.
func (n *node) grow(ctx context.Context) {
	for name, child := range n.entries {
		n.AddChild(name, n.NewPersistentInode(ctx, child, fs.StableAttr{Mode: child.kind()}), true)
		child.grow(ctx)
	}
}

func (n *node) kind() uint32 {
	if n.entries != nil {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

// change makes a change, unless the power is gone by then: then it waits
// until whoever asked for it has been killed.
func (l *lossy) change(f func()) syscall.Errno {
	l.mu.Lock()
	l.changes++
	n := l.changes
	if l.cutAt == 0 || n < l.cutAt {
		f()
	}
	l.mu.Unlock()
	if l.cutAt == 0 || n < l.cutAt {
		return 0
	}
	if n == l.cutAt {
		close(l.reached)
	}
	<-l.off
	return syscall.EIO
}

// crash is what is left after a power cut.
func (n *node) crash(rnd *rand.Rand) *image {
	if n.entries == nil {
		return &image{data: n.torn(rnd)}
	}
	entries := n.durable
	if k := rnd.IntN(len(n.log) + 1); k > 0 {
		entries = n.log[k-1]
	}
	i := &image{entries: map[string]*image{}}
	for name, child := range entries {
		i.entries[name] = child.crash(rnd)
	}
	return i
}

// torn is what is left of a file: all that was written, nothing of what was
// not synced, or any part of it.
func (n *node) torn(rnd *rand.Rand) []byte {
	const sector = 512
	data := slices.Clone(n.synced)
	how := rnd.IntN(3)
	for _, w := range n.writes {
		if how == 0 {
			break
		}
		for at := 0; at < len(w.data); at += sector {
			if how == 1 || rnd.IntN(2) == 0 {
				part := change{w.at + at, w.data[at:min(at+sector, len(w.data))]}
				data = part.apply(data)
			}
		}
		if w.data == nil && (how == 1 || rnd.IntN(2) == 0) && w.at <= len(data) {
			data = w.apply(data)
		}
	}
	return data
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.fill(&out.Attr)
	return 0
}

func (n *node) fill(a *fuse.Attr) {
	a.Mode, a.Size, a.Uid = n.kind()|0o700, uint64(len(n.data)), uint32(os.Getuid())
}

func (n *node) Lookup(_ context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	child := n.entries[name]
	if child == nil {
		return nil, syscall.ENOENT
	}
	child.fill(&out.Attr)
	return child.EmbeddedInode(), 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	errno := syscall.Errno(0)
	if size, ok := in.GetSize(); ok {
		errno = n.disk.change(func() { n.write(change{at: int(size)}) })
	}
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.fill(&out.Attr)
	return errno
}

func (n *node) write(w change) {
	n.data = w.apply(n.data)
	n.writes = append(n.writes, w)
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) { return nil, 0, 0 }

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	from := min(int(off), len(n.data))
	return fuse.ReadResultData(slices.Clone(n.data[from:min(from+len(dest), len(n.data))])), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	errno := n.disk.change(func() { n.write(change{int(off), slices.Clone(data)}) })
	return uint32(len(data)), errno
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.disk.change(func() {
		n.synced, n.writes = slices.Clone(n.data), nil
		n.durable, n.log = maps.Clone(n.entries), nil
	})
}

// set changes an entry of a folder; nil takes it out.
func (n *node) set(name string, child *node) {
	if child == nil {
		delete(n.entries, name)
	} else {
		n.entries[name] = child
	}
	n.log = append(n.log, maps.Clone(n.entries))
}

func (n *node) add(ctx context.Context, name string, child *node, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	errno := n.disk.change(func() { n.set(name, child) })
	child.fill(&out.Attr)
	return n.NewPersistentInode(ctx, child, fs.StableAttr{Mode: child.kind()}), errno
}

func (n *node) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	i, errno := n.add(ctx, name, &node{disk: n.disk}, out)
	return i, nil, 0, errno
}

func (n *node) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, &node{disk: n.disk, entries: map[string]*node{}, durable: map[string]*node{}}, out)
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.disk.change(func() { n.set(name, nil) })
}

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, _ uint32) syscall.Errno {
	if to.EmbeddedInode() != n.EmbeddedInode() {
		return syscall.EXDEV
	}
	return n.disk.change(func() {
		n.entries[newName] = n.entries[name]
		n.set(name, nil)
	})
}
