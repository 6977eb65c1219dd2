package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A journal is a file of frames behind a line that names its format:
//
//	length  uint32, of what follows the checksum
//	crc32c  uint32, of what follows it
//	kind    byte
//	payload
//
// Numbers are little-endian. Frames count once a commit frame follows them:
// what stands behind the last commit was not accepted and is cut off.
const (
	kindResult = 'A' // clock and wall time, uint64 each, then the line
	kindNote   = 'N' // JSON: what a hook has been told of a name
	kindName   = 'S' // JSON, newline, line: the memory of a name, at the start of a journal
	kindJob    = 'J' // JSON, newline, event: a job
	kindEvent  = 'E' // JSON identifier, newline, event: in place of what a job had
	kindRetry  = 'R' // JSON: a job runs again later
	kindKept   = 'K' // JSON key, newline, value; no value: forgotten
	kindDone   = 'D' // the identifier of a job that is no more
	kindCommit = 'C' // how much input the batch took, uint64, and its crc32c
)

// header begins a journal of this format.
const header = "pup-spool 1\n"

const frameHead = 8

// maxFrame bounds what a reader believes a length to be.
const maxFrame = 64 << 20

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// appendFrame appends a frame whose payload is the parts.
func appendFrame(dst []byte, kind byte, parts ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind)
	for _, p := range parts {
		dst = append(dst, p...)
	}
	body := dst[start+frameHead:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+4:], checksum(body))
	return dst
}

var errTorn = errors.New("torn frame")

// nextFrame takes the first frame of b apart; n is its length.
func nextFrame(b []byte) (kind byte, payload []byte, n int, err error) {
	if len(b) < frameHead+1 {
		return 0, nil, 0, errTorn
	}
	length := binary.LittleEndian.Uint32(b)
	if length < 1 || length > maxFrame || int(length) > len(b)-frameHead {
		return 0, nil, 0, errTorn
	}
	body := b[frameHead : frameHead+int(length)]
	if checksum(body) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, nil, 0, errTorn
	}
	return body[0], body[1:], frameHead + int(length), nil
}
