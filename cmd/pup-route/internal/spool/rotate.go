//go:build !faults

package spool

// minRotate is the least size at which a journal is replaced.
const minRotate = 16 << 20
