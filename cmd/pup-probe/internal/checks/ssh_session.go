package checks

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

// sshSessionOptions are what every session over SSH needs.
type sshSessionOptions struct {
	User               string   `json:"user" doc:"The user to log in as, instead of the URL's."`
	Password           string   `json:"password" secret:"true" doc:"The user's password, for password and keyboard-interactive. Needs host_key, since a server that nobody knows must not get it."`
	Key                string   `json:"key" secret:"true" doc:"A private key in PEM or OpenSSH form."`
	Passphrase         string   `json:"passphrase" secret:"true" doc:"The passphrase of key."`
	HostKey            []string `json:"host_key" doc:"The fingerprints, as SHA256:..., that the server's key may have. One must match."`
	HostKeyAlgorithms  []string `json:"host_key_algorithms" doc:"The algorithms to ask for the host key with, the best first, such as ssh-ed25519: a server has a key for each."`
	InsecureAlgorithms bool     `json:"insecure_algorithms" doc:"Offer outdated algorithms as well, for old devices."`
}

// sshSessionFacts are what every session over SSH finds.
type sshSessionFacts struct {
	Version     string   `json:"version" doc:"How the server identifies itself, such as SSH-2.0-OpenSSH_9.2p1."`
	HostKeyType string   `json:"host_key_type" doc:"The type of its host key, such as ssh-ed25519."`
	HostKey     string   `json:"host_key" doc:"The fingerprint of its host key, as SHA256:... ."`
	Kex         string   `json:"kex" doc:"The key exchange that was agreed on."`
	Cipher      string   `json:"cipher" doc:"The cipher from the server to us."`
	AuthMethods []string `json:"auth_methods" doc:"The methods that the server offers for logging in, such as publickey; absent where it wants none."`
	LoggedIn    *bool    `json:"logged_in" doc:"Whether we are logged in."`
	AuthMethod  string   `json:"auth_method" doc:"The method that we have logged in with, or none."`
}

// errSSHNoLogin ends a handshake once all is known that can be known without
// credentials.
var errSSHNoLogin = errors.New("no login is wanted")

// sshSession is a client's session over SSH (RFC 4251 to 4254).
type sshSession struct {
	*ssh.Client // nil where nobody has logged in

	p      *probe.Probe
	opt    *sshSessionOptions
	facts  *sshSessionFacts
	stream *sshStream
	login  bool // a login is wanted
}

// sshStream is a connection whose reads and writes have all ended when Close
// returns: the library leaves goroutines behind that would go on using it.
type sshStream struct {
	*probe.Conn
	read, write sync.Mutex
	closed      bool // written under both

	mu  sync.Mutex
	key ssh.PublicKey
	err error // the first of a read or write
}

// note keeps the first error, since the library words some in its own way.
func (s *sshStream) note(n int, err error) (int, error) {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = err
		}
	}
	return n, err
}

// cause is err, unless the connection itself is what has ended the session.
func (s *sshStream) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return err
}

func (s *sshStream) Read(b []byte) (int, error) {
	s.read.Lock()
	defer s.read.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.note(s.Conn.Read(b))
}

func (s *sshStream) Write(b []byte) (int, error) {
	s.write.Lock()
	defer s.write.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.note(s.Conn.Write(b))
}

func (s *sshStream) Close() error {
	err := s.Conn.Close()
	s.read.Lock()
	s.write.Lock()
	s.closed = true
	s.write.Unlock()
	s.read.Unlock()
	return err
}

// sshDial connects to the target and does what can be done: the key exchange,
// and the login if one is wanted.
func sshDial(ctx context.Context, p *probe.Probe, opt *sshSessionOptions, facts *sshSessionFacts, login bool) (*sshSession, error) {
	s := &sshSession{p: p, opt: opt, facts: facts, login: login || opt.Password != "" || opt.Key != ""}
	cfg, methods, err := s.config()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // a passphrase is slow to try, on purpose
		return nil, probe.Failf(wire.Local, "%s.key: there was no time left after deriving its key from the passphrase; allow a longer timeout, or fewer rounds (ssh-keygen -a)", p.URL.Check.Name)
	}
	c, err := p.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s.stream = &sshStream{Conn: c}
	p.Phase(wire.Greet)
	facts.LoggedIn = new(false)
	if facts.Version, err = sshVersion(c); err != nil {
		c.Close()
		return nil, err
	}
	tried, refused := "", error(nil)
	cfg.AuthCallback = func(a *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
		s.negotiated(a.Algorithms)
		facts.AuthMethods = a.AllowedMethods
		p.Phase(wire.Auth)
		if !s.login {
			return nil, errSSHNoLogin
		}
		for _, m := range methods {
			if slices.Contains(a.AllowedMethods, m.name) && !slices.Contains(a.TriedMethods, m.name) {
				tried = m.name
				return m.AuthMethod, nil
			}
		}
		refused = probe.Failf(wire.Denied, "the server does not let us in: we have tried %s, it offers %.200q",
			strings.Join(a.TriedMethods, ", "), a.AllowedMethods)
		return nil, refused
	}
	conn, channels, requests, err := ssh.NewClientConn(s.stream, p.URL.Host, cfg)
	if kerr := errors.Join(s.hostKey(), refused); kerr != nil {
		s.stream.Close()
		return nil, kerr
	}
	if err != nil {
		return nil, s.handshakeError(err)
	}
	s.Client = ssh.NewClient(conn, channels, requests)
	*facts.LoggedIn, facts.AuthMethod = true, "none"
	if tried != "" {
		facts.AuthMethod = tried
	}
	if a, ok := conn.(ssh.AlgorithmsConnMetadata); ok {
		s.negotiated(a.Algorithms())
	}
	return s, nil
}

// close ends the session, and waits for the library's goroutines.
func (s *sshSession) close() {
	if s != nil && s.Client != nil {
		s.Client.Close()
		s.Client.Wait()
	}
}

func (s *sshSession) negotiated(a ssh.NegotiatedAlgorithms) {
	s.facts.Kex, s.facts.Cipher = a.KeyExchange, a.Read.Cipher
}

// handshakeError sorts the errors of the library. Nil means that there was to
// be no login.
func (s *sshSession) handshakeError(err error) error {
	defer s.stream.Close()
	if errors.Is(err, errSSHNoLogin) {
		return nil
	}
	if _, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return probe.Protocolf("%w", err)
	}
	if strings.Contains(err.Error(), "ssh: disconnect, reason ") {
		if s.facts.AuthMethods != nil {
			return probe.Failf(wire.Denied, "%.200s", err.Error())
		}
		return probe.Failf(wire.Unavailable, "%.200s", err.Error())
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return s.stream.cause(err)
	}
	return err
}

// hostKey takes down the server's key and looks at whether it is the right
// one, once the key exchange has proved that the server has it.
func (s *sshSession) hostKey() error {
	s.stream.mu.Lock()
	key := s.stream.key
	s.stream.mu.Unlock()
	if key == nil {
		return nil
	}
	s.facts.HostKeyType, s.facts.HostKey = key.Type(), ssh.FingerprintSHA256(key)
	if len(s.opt.HostKey) > 0 && !slices.Contains(s.opt.HostKey, s.facts.HostKey) {
		return probe.Failf(wire.CertUntrusted, "the host key %s (%s) is none of %s.host_key", s.facts.HostKey, s.facts.HostKeyType, s.p.URL.Check.Name)
	}
	return nil
}

// sshHostKeys are the algorithms for host keys, in the order of OpenSSH, which
// decides whose fingerprint is shown. Certificates are left out: of what they
// say no more would be verified than of the key itself.
var sshHostKeys = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// sshMethod is a way to log in.
type sshMethod struct {
	name string
	ssh.AuthMethod
}

// config checks the options.
func (s *sshSession) config() (*ssh.ClientConfig, []sshMethod, error) {
	o, name := s.opt, s.p.URL.Check.Name
	cfg := &ssh.ClientConfig{User: o.User, ClientVersion: "SSH-2.0-pup"}
	if cfg.User == "" {
		cfg.User = s.p.URL.User.Username()
	}
	if cfg.User == "" && (o.Password != "" || o.Key != "") {
		return nil, nil, probe.Failf(wire.BadOptions, "%s.user: is required to log in", name)
	}
	if cfg.User == "" {
		cfg.User = "pup"
	}
	for _, k := range o.HostKey {
		if !strings.HasPrefix(k, "SHA256:") || len(k) != len("SHA256:")+43 {
			return nil, nil, probe.Failf(wire.BadOptions, "%s.host_key: %.80q is no fingerprint such as ssh-keygen -l prints, SHA256:...", name, k)
		}
	}
	if o.Password != "" && len(o.HostKey) == 0 && !s.p.Loopback(s.p.URL.Host) {
		return nil, nil, probe.Failf(wire.BadOptions, "%s.password: needs %s.host_key; without credentials the check tells the fingerprint", name, name)
	}
	all := ssh.SupportedAlgorithms()
	cfg.HostKeyAlgorithms = sshHostKeys
	if o.InsecureAlgorithms {
		old := ssh.InsecureAlgorithms()
		cfg.KeyExchanges = append(all.KeyExchanges, old.KeyExchanges...)
		cfg.Ciphers = append(all.Ciphers, old.Ciphers...)
		cfg.MACs = append(all.MACs, old.MACs...)
		//lint:ignore SA1019 an old server is looked at as it is, where the target asks for it
		cfg.HostKeyAlgorithms = slices.Concat(sshHostKeys, []string{ssh.KeyAlgoRSA, ssh.InsecureKeyAlgoDSA})
	}
	if len(o.HostKeyAlgorithms) > 0 {
		cfg.HostKeyAlgorithms = o.HostKeyAlgorithms
	}
	// called on a goroutine of the library, so it judges nothing
	cfg.HostKeyCallback = func(_ string, _ net.Addr, key ssh.PublicKey) error {
		s.stream.mu.Lock()
		s.stream.key = key
		s.stream.mu.Unlock()
		if len(o.HostKey) > 0 && !slices.Contains(o.HostKey, ssh.FingerprintSHA256(key)) {
			return errors.New("another host key")
		}
		return nil
	}
	methods, err := s.methods()
	return cfg, methods, err
}

func (s *sshSession) methods() ([]sshMethod, error) {
	o, name := s.opt, s.p.URL.Check.Name
	var methods []sshMethod
	if o.Key != "" {
		signer, err := sshKey(o)
		if err != nil {
			return nil, probe.Failf(wire.BadOptions, "%s.key: %w", name, err)
		}
		methods = append(methods, sshMethod{"publickey", ssh.PublicKeys(signer)})
	}
	if o.Password != "" {
		answer := func(_, _ string, questions []string, echos []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				if !echos[i] { // what may be seen is not the password
					answers[i] = o.Password
				}
			}
			return answers, nil
		}
		methods = append(methods, sshMethod{"password", ssh.Password(o.Password)}, sshMethod{"keyboard-interactive", ssh.KeyboardInteractive(answer)})
	}
	return methods, nil
}

func sshKey(o *sshSessionOptions) (ssh.Signer, error) {
	if o.Passphrase != "" {
		return ssh.ParsePrivateKeyWithPassphrase([]byte(o.Key), []byte(o.Passphrase))
	}
	signer, err := ssh.ParsePrivateKey([]byte(o.Key))
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return nil, errors.New("is encrypted; give its passphrase as well")
	}
	return signer, err
}

// sshVersion reads the server's identification (RFC 4253, section 4.2) and
// leaves it for the library. No other line may come before it: those who send
// one are, but for their last breath, no SSH servers.
func sshVersion(c *probe.Conn) (string, error) {
	for n := 1; ; n = c.Buffered() + 1 {
		if _, err := c.Peek(n); err != nil {
			return "", err
		}
		b, _ := c.Peek(c.Buffered())
		line, _, whole := strings.Cut(string(b), "\n")
		switch {
		case strings.HasPrefix(line, "SSH-") && whole:
			return strings.TrimSuffix(line, "\r"), sshSpeaks2(line)
		case strings.HasPrefix("SSH-", line) && !whole, strings.HasPrefix(line, "SSH-") && len(line) <= 255:
		case whole && sshBusy(line):
			return "", probe.Failf(wire.Unavailable, "got %.80q", line)
		case whole || len(line) > 255:
			return "", probe.Protocolf("got %.80q, want SSH-2.0-...", line)
		}
	}
}

func sshSpeaks2(line string) error {
	if strings.HasPrefix(line, "SSH-2.0-") || strings.HasPrefix(line, "SSH-1.99-") {
		return nil
	}
	return probe.Protocolf("got %.80q, want SSH-2.0-...", line)
}

// sshBusy knows what OpenSSH says instead when it takes no more connections.
func sshBusy(line string) bool {
	return strings.HasPrefix(line, "Exceeded MaxStartups") || strings.HasPrefix(line, "Not allowed at this time")
}
