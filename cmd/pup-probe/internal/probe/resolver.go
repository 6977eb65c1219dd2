package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/dnsmsg"
	"pup/cmd/pup-probe/internal/dnsudp"
)

// A resolver finds the addresses of host names: in the hosts file, then by
// asking the name servers of the system or of the target. It asks itself, so
// that a name which does not exist, a domain whose servers fail and a resolver
// of ours that is silent are three different things.
type resolver struct {
	hostsFile string // /etc/hosts if empty
	confFile  string // /etc/resolv.conf if empty
	hosts     watched[hostsTable]
	conf      watched[*resolvConf]
	dialTLS   tlsDialer // for tests; of the system's authorities if nil
	sockets   dnsudp.Sockets

	mu        sync.Mutex
	ipv6      bool // whether there was a route to global IPv6 addresses
	ipv6Until time.Time
}

// A nameServer is a server that a resolver asks.
type nameServer struct {
	network string // udp, tcp, tls
	host    string // a name or an address
	port    uint16
	name    string // of the certificate, for tls
}

func (s nameServer) String() string {
	hp := net.JoinHostPort(s.host, strconv.Itoa(int(s.port)))
	if s.network == "udp" {
		return hp
	}
	return s.network + "://" + hp
}

// parseNameServer reads HOST, HOST:PORT or a bare IPv6 address, with udp://,
// tcp:// or tls:// before it; udp if there is none. After tls:// comes an
// address or a name, and #NAME if the certificate is for another name.
func parseNameServer(s string) (nameServer, error) {
	ns := nameServer{network: "udp", port: 53}
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		ns.network, rest = scheme, after
	}
	switch ns.network {
	case "udp", "tcp":
	case "tls":
		ns.port = 853
		rest, ns.name, _ = strings.Cut(rest, "#")
	default:
		return ns, fmt.Errorf("%.80q begins with none of udp://, tcp://, tls://", s)
	}
	ns.host = rest
	bracketed := len(rest) > 1 && rest[0] == '[' && rest[len(rest)-1] == ']'
	if bracketed {
		ns.host = rest[1 : len(rest)-1]
	}
	if _, err := netip.ParseAddr(rest); err != nil && !bracketed && strings.Contains(rest, ":") {
		host, port, err := splitHostPort(rest)
		if err != nil {
			return ns, err
		}
		ns.host, ns.port = host, uint16(port)
	}
	if _, err := netip.ParseAddr(ns.host); err != nil {
		if err := dnsmsg.Valid(strings.TrimSuffix(ns.host, ".")); err != nil {
			return ns, err
		}
	}
	if strings.ContainsAny(ns.host, "[]/#@ ") {
		return ns, fmt.Errorf("%.80q is neither a name nor an address", ns.host)
	}
	if ns.name == "" {
		ns.name = ns.host
	}
	return ns, nil
}

// CheckResolver says what is wrong with the name of a name server, which is
// written as in the member resolver of a target: "192.0.2.53",
// "tls://[2001:db8::53]:853#dns.example.org". Empty is the system's.
func CheckResolver(s string) error {
	if s == "" {
		return nil
	}
	_, err := parseNameServer(s)
	return err
}

// lookup finds the addresses of host, of the target's family, in the order in
// which they are to be tried.
func (r *resolver) lookup(ctx context.Context, p *Probe, host string) ([]netip.Addr, error) {
	family := p.opt.family
	own := p.opt.resolver
	if own == "" {
		own = p.run.Resolver
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if own == "" || isLocalhost(name) {
		if addrs := r.fromHosts(name, family); len(addrs) > 0 {
			return addrs, nil
		}
	}
	if err := dnsmsg.Valid(name); err != nil {
		return nil, Failf(wire.BadOptions, "host: %w", err)
	}
	var addrs []netip.Addr
	var err error
	switch {
	case own != "":
		addrs, err = r.ask(ctx, p, host, name, own)
	case runtime.GOOS == "windows" && r.confFile == "":
		addrs, err = askSystem(ctx, host, family)
	default:
		addrs, err = r.search(ctx, host, name, family)
	}
	if err != nil {
		return nil, err
	}
	return r.order(addrs), nil
}

// isLocalhost says whether the name is of this machine wherever it is asked
// for (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// fromHosts gives the addresses of name in the hosts file, in its order.
func (r *resolver) fromHosts(name, family string) []netip.Addr {
	all := r.hosts.get(orElse(r.hostsFile, "/etc/hosts"), parseHosts)[name]
	if isLocalhost(name) && !slices.ContainsFunc(all, netip.Addr.IsLoopback) {
		all = loopback
	}
	var addrs []netip.Addr
	for _, a := range all {
		if fits(a, family) && (a.IsLoopback() || !isLocalhost(name)) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ask asks the name server that the target, or the command line, names. A name
// is taken as it is, without a search list.
func (r *resolver) ask(ctx context.Context, p *Probe, host, name, own string) ([]netip.Addr, error) {
	ns, err := parseNameServer(own)
	if err != nil {
		return nil, Failf(wire.BadOptions, "resolver: %w", err)
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(ns.host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = r.search(ctx, ns.host, strings.ToLower(strings.TrimSuffix(ns.host, ".")), ""); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, Failf(wire.Local, "resolver %s: %w", ns, err)
	}
	conf := resolvConf{timeout: 5 * time.Second, attempts: 2}
	for _, a := range r.order(addrs) {
		if p.opt.resolver != "" {
			if err := p.run.allowed(a); err != nil {
				return nil, fmt.Errorf("resolver: %w", err)
			}
		}
		s := ns
		s.host = a.String()
		conf.servers = append(conf.servers, s)
	}
	return r.resolve(ctx, &conf, host, name, p.opt.family)
}

// search asks the name servers of the system for host, and for host in the
// domains of the search list, in the order of resolv.conf(5).
func (r *resolver) search(ctx context.Context, host, name, family string) ([]netip.Addr, error) {
	if isLocalhost(name) {
		return r.fromHosts(name, family), nil
	}
	conf := r.conf.get(orElse(r.confFile, "/etc/resolv.conf"), parseResolvConf)
	var first error
	for _, n := range conf.names(name, strings.HasSuffix(host, ".")) {
		addrs, err := r.resolve(ctx, conf, host, n, family)
		if err == nil {
			return addrs, nil
		}
		if f, ok := errors.AsType[*failure](err); !ok || f.reason != wire.NoSuchHost {
			return nil, err
		}
		if first == nil || n == name {
			first = err
		}
	}
	return nil, first
}

// askSystem asks the system's own resolver, where we don't know how to read
// its configuration.
func askSystem(ctx context.Context, host, family string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+family, host)
	de, ok := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil || ctx.Err() != nil || !ok:
		return addrs, err
	case de.IsNotFound:
		return nil, Failf(wire.NoSuchHost, "%.80q does not exist, or has no address: %w", host, err)
	case de.IsTemporary && !de.IsTimeout:
		return nil, Failf(wire.Unavailable, "%.80q can't be resolved: %w", host, err)
	}
	return nil, Failf(wire.Local, "the system's resolver: %w", err)
}

// resolve asks the servers, one after the other and again, for the addresses
// of name.
func (r *resolver) resolve(ctx context.Context, conf *resolvConf, host, name, family string) ([]netip.Addr, error) {
	l := lookup{resolver: r, host: host}
	for _, t := range addressTypes[family] {
		l.questions = append(l.questions, &question{qtype: t})
	}
	// a recursive server follows aliases itself; others leave that to us
	for range maxAliases {
		if err := l.run(ctx, conf, dns.Fqdn(name)); err != nil {
			return nil, err
		}
		addrs, alias := l.addresses()
		if len(addrs) > 0 {
			return addrs, nil
		}
		if alias == "" {
			return nil, l.failure()
		}
		name = alias
	}
	return nil, Failf(wire.Unavailable, "%.80q can't be resolved: more than %d aliases", host, maxAliases)
}

// maxAliases bounds a chain of CNAME records.
const maxAliases = 12

var addressTypes = map[string][]uint16{"": {dns.TypeA, dns.TypeAAAA}, "4": {dns.TypeA}, "6": {dns.TypeAAAA}}

// order puts the addresses of the family that we have a route for first, IPv6
// before IPv4, and else keeps their order.
func (r *resolver) order(addrs []netip.Addr) []netip.Addr {
	i := slices.IndexFunc(addrs, netip.Addr.Is6)
	if i < 0 || !slices.ContainsFunc(addrs, netip.Addr.Is4) {
		return addrs
	}
	six := r.route6(addrs[i])
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int {
		switch {
		case a.Is6() == b.Is6():
			return 0
		case a.Is6() == six:
			return -1
		}
		return 1
	})
	return addrs
}

var global6 = netip.MustParsePrefix("2000::/3")

// routeFor is for how long the answer whether there is a route is trusted.
const routeFor = 5 * time.Second

// route6 says whether we have a route to a.
func (r *resolver) route6(a netip.Addr) bool {
	if !global6.Contains(a) {
		return hasRoute(a)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.After(r.ipv6Until) {
		r.ipv6, r.ipv6Until = hasRoute(a), now.Add(routeFor)
	}
	return r.ipv6
}

// hasRoute connects a UDP socket, which asks the routing table and sends
// nothing.
func hasRoute(a netip.Addr) bool {
	c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}
