package checks

import (
	"bytes"
	"io"
	"net"
	"testing"

	"pup/cmd/internal/realserver"
)

// brokerPaused forwards to the real server of the given name, and stops it for
// good, in mid-session, when the check has sent the trigger: what follows gets
// to its kernel only.
func brokerPaused(t *testing.T, says map[string]string, name, trigger string) (addr string) {
	t.Helper()
	return serve(t, func(c net.Conn) {
		server, err := net.Dial("tcp", says[name])
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		go func() { io.Copy(c, server) }()
		var seen []byte
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			seen = append(seen, b[:n]...)
			if i := bytes.Index(seen, []byte(trigger)); i >= 0 {
				seen = nil
				realserver.Pause(t, says, name)
			}
			server.Write(b[:n])
		}
	})
}
