package checks

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) that are needed
// to look at a file.
const (
	sftpInit    = 1
	sftpVersion = 2
	sftpStat    = 17
	sftpStatus  = 101
	sftpAttrs   = 105

	sftpMaxPacket = 64 << 10
)

// The status codes that matter.
const (
	sftpNoSuchFile = 2
	sftpDenied     = 3
)

// sftpFile is what the server says of a file. What it leaves out is nil.
type sftpFile struct {
	size     *int64
	mode     *uint32
	modified *time.Time
}

// sftpWrite sends a packet.
func sftpWrite(w io.Writer, kind byte, body []byte) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	_, err := w.Write(append(append(b, kind), body...))
	return err
}

// sftpRead reads a packet.
func sftpRead(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > sftpMaxPacket {
		return 0, nil, probe.Protocolf("SFTP: a packet of %d bytes", n)
	}
	body = make([]byte, n-1)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

// sftpHello agrees on the version.
func sftpHello(rw io.ReadWriter) error {
	if err := sftpWrite(rw, sftpInit, []byte{0, 0, 0, 3}); err != nil {
		return err
	}
	kind, body, err := sftpRead(rw)
	if err != nil {
		return err
	}
	if kind != sftpVersion || len(body) < 4 || binary.BigEndian.Uint32(body) < 3 {
		return probe.Protocolf("SFTP: got a packet of type %d with %.20q, want the version 3", kind, body)
	}
	return nil
}

// sftpLook asks for a file, following links.
func sftpLook(rw io.ReadWriter, path string) (*sftpFile, error) {
	body := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(path)))
	if err := sftpWrite(rw, sftpStat, append(body, path...)); err != nil {
		return nil, err
	}
	kind, body, err := sftpRead(rw)
	switch {
	case err != nil:
		return nil, err
	case len(body) < 4 || binary.BigEndian.Uint32(body) != 1:
		return nil, probe.Protocolf("SFTP: got an answer to another question: %.20q", body)
	case kind == sftpStatus:
		return nil, sftpRefusal(path, body[4:])
	case kind != sftpAttrs:
		return nil, probe.Protocolf("SFTP: got a packet of type %d, want the attributes of a file", kind)
	}
	return sftpParse(body[4:])
}

func sftpRefusal(path string, b []byte) error {
	code, text := uint32(4), ""
	if len(b) >= 8 {
		code = binary.BigEndian.Uint32(b)
		if n := binary.BigEndian.Uint32(b[4:]); uint64(n) <= uint64(len(b)-8) {
			text = string(b[8 : 8+n])
		}
	}
	reason := wire.Mismatch
	switch code {
	case sftpDenied:
		reason = wire.Denied
	case sftpNoSuchFile:
		text = "no such file"
	}
	if text == "" {
		text = fmt.Sprintf("status %d", code)
	}
	return probe.Failf(reason, "%.80q: %.80q", path, text)
}

// sftpParse reads ATTRS (section 5).
func sftpParse(b []byte) (*sftpFile, error) {
	short := probe.Protocolf("SFTP: the attributes of the file are cut off")
	take := func(n int) ([]byte, bool) {
		if len(b) < n {
			return nil, false
		}
		head := b[:n]
		b = b[n:]
		return head, true
	}
	head, ok := take(4)
	if !ok {
		return nil, short
	}
	f, flags := &sftpFile{}, binary.BigEndian.Uint32(head)
	if flags&1 != 0 {
		x, ok := take(8)
		if !ok {
			return nil, short
		}
		f.size = new(int64(binary.BigEndian.Uint64(x) & (1<<63 - 1)))
	}
	if flags&2 != 0 { // uid, gid
		if _, ok := take(8); !ok {
			return nil, short
		}
	}
	if flags&4 != 0 {
		x, ok := take(4)
		if !ok {
			return nil, short
		}
		f.mode = new(binary.BigEndian.Uint32(x))
	}
	if flags&8 != 0 { // atime, mtime
		x, ok := take(8)
		if !ok {
			return nil, short
		}
		f.modified = new(time.Unix(int64(binary.BigEndian.Uint32(x[4:])), 0))
	}
	return f, nil
}

// kind names the type of the file, by the bits of POSIX.
func (f *sftpFile) kind() string {
	if f.mode == nil {
		return ""
	}
	switch *f.mode & 0o170000 {
	case 0o100000:
		return "file"
	case 0o040000:
		return "directory"
	}
	return "other"
}
