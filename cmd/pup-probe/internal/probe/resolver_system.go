package probe

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// watched is what a file says. The file is read when it is needed, and again
// when it has changed; without the file it is what an empty one says.
type watched[T any] struct {
	mu    sync.Mutex
	info  os.FileInfo // of the file that was read; nil: there was none
	known bool
	value T
}

func (w *watched[T]) get(file string, parse func(text string) T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(file)
	if err != nil {
		info = nil
	}
	if w.known && sameFile(w.info, info) {
		return w.value
	}
	b, _ := os.ReadFile(file)
	w.value, w.info, w.known = parse(string(b)), info, true
	return w.value
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// A hostsTable has the addresses of names in lower case.
type hostsTable map[string][]netip.Addr

// parseHosts reads a hosts file: an address and its names on each line.
// Lines that make no sense are skipped, as everybody does.
func parseHosts(text string) hostsTable {
	t := hostsTable{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, name := range f[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			t[name] = append(t[name], a.Unmap())
		}
	}
	return t
}

// A resolvConf is what resolv.conf(5) says.
type resolvConf struct {
	servers  []nameServer
	search   []string // without dots at their ends
	ndots    int
	timeout  time.Duration // for an answer of a server
	attempts int           // rounds over the servers
}

// The limits are those of the C library.
const (
	maxServers  = 3
	maxNdots    = 15
	maxWait     = 30 * time.Second
	maxAttempts = 5
)

// parseResolvConf reads resolv.conf as the C library does: what it does not
// know it skips, of domain and search the last counts, and without a server it
// is the one on this machine.
func parseResolvConf(text string) *resolvConf {
	c := &resolvConf{ndots: 1, timeout: 5 * time.Second, attempts: 2}
	network, searched := "udp", false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.IndexByte("#;", line[0]) >= 0 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if ap, ok := serverAddress(f[1]); ok && len(c.servers) < maxServers {
				c.servers = append(c.servers, nameServer{host: ap.Addr().String(), port: ap.Port()})
			}
		case "domain", "search":
			if f[0] == "domain" {
				f = f[:2]
			}
			c.search, searched = nil, true
			for _, d := range f[1:] {
				if d = strings.ToLower(strings.Trim(d, ".")); d != "" {
					c.search = append(c.search, d)
				}
			}
		case "options":
			for _, o := range f[1:] {
				if o == "use-vc" {
					network = "tcp"
				}
				c.option(o)
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []nameServer{{host: "127.0.0.1", port: 53}}
	}
	for i := range c.servers {
		c.servers[i].network = network
	}
	if !searched {
		c.search = ownDomain()
	}
	return c
}

// serverAddress reads an address, or [ADDRESS]:PORT as OpenBSD has it.
func serverAddress(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), true
	}
	host, port, ok := strings.Cut(strings.TrimPrefix(s, "["), "]:")
	a, err := netip.ParseAddr(host)
	n, perr := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(n)), ok && s[0] == '[' && err == nil && perr == nil && n > 0
}

func (c *resolvConf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return
	}
	switch name {
	case "ndots":
		c.ndots = min(n, maxNdots)
	case "timeout":
		c.timeout = min(max(time.Duration(n)*time.Second, time.Second), maxWait)
	case "attempts":
		c.attempts = min(max(n, 1), maxAttempts)
	}
}

// ownDomain is the search list of a machine that has none: the domain of its
// own name.
func ownDomain() []string {
	host, _ := os.Hostname()
	if _, domain, ok := strings.Cut(strings.TrimSuffix(host, "."), "."); ok {
		return []string{strings.ToLower(domain)}
	}
	return nil
}

// names lists what to ask for, in order: a name with ndots dots as it is
// first, another in the domains of the search list first.
func (c *resolvConf) names(name string, absolute bool) []string {
	if absolute {
		return []string{name}
	}
	var names []string
	dots := strings.Count(name, ".")
	if dots >= c.ndots {
		names = append(names, name)
	}
	for _, d := range c.search {
		if n := name + "." + d; len(n) <= 253 {
			names = append(names, n)
		}
	}
	if dots < c.ndots {
		names = append(names, name)
	}
	return names
}
