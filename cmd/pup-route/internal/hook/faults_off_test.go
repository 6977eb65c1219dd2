//go:build !faults

package hook

// escapes is how often each way of escaping is tried; make faults tries more.
const escapes = 1
