package route

import "io"

// A source reads the input so that what has not been accepted is still in it.
type source interface {
	io.Reader
	// Input is what the lines since the last Read were made of.
	Input() []byte
	// Known reports whether an earlier run had accepted them. It may not have
	// come to pass them on.
	Known() bool
}

// A plainSource is any reader: what it has read is in our memory alone.
type plainSource struct{ io.Reader }

func (plainSource) Input() []byte { return nil }

func (plainSource) Known() bool { return false }
