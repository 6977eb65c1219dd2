//go:build faults

package spool

// minRotate is so small that tests of faults come upon journals that are
// being replaced.
const minRotate = 16 << 10
